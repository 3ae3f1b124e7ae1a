#!/usr/bin/env bash
# One process over all local devices: every GPU of this machine, every core of a TPU VM, or the CPU.
#
#   launch/local.sh --config=configs/sample.py --workdir=runs/sample
#   SIMULATE=8 launch/local.sh …        eight simulated CPU devices, to try data parallelism anywhere
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
if [ -n "${SIMULATE:-}" ]; then
  export JAX_PLATFORMS=cpu
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$SIMULATE"
fi
exec "$python" -m drin_jax.main "$@"
