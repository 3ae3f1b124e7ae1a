#!/usr/bin/env bash
# N processes on this machine that train together, as the machines of a cluster do, over loopback.
#
#   launch/multiprocess.sh 2 --config=configs/sample.py --workdir=runs/sample
#   SIMULATE=4 launch/multiprocess.sh 2 …     four simulated CPU devices in each process
#   PORT=29500 launch/multiprocess.sh 2 …     process 0 listens there, not at a port that is free
#
# Every line of output has its process's number in front. Ctrl-C or SIGTERM reaches every process:
# the run saves and leaves with 130 or 143. Where a process fails the others end too; the exit code
# is that of the first that failed. On a machine with several GPUs launch/local.sh uses them all in
# one process; to give each process one, set JAX_LOCAL_DEVICE_IDS=process (needs that many GPUs).
set -euo pipefail
case ${1:-} in
  '' | *[!0-9]* | 0) echo "usage: $0 PROCESSES FLAGS_OF_drin_jax.main…" >&2; exit 2 ;;
esac
processes=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
if [ -n "${SIMULATE:-}" ]; then
  export JAX_PLATFORMS=cpu
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$SIMULATE"
fi
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
ended=$(mktemp)
trap 'rm -f "$ended"' EXIT

prefixed() { while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line"; done; }

one() {  # one process; its exit code goes into the file $ended, in the order of the ends
  local devices=${JAX_LOCAL_DEVICE_IDS:-}
  if [ "$devices" = process ]; then export JAX_LOCAL_DEVICE_IDS=$1; fi
  "$python" -m drin_jax.main "${@:2}" --distributed=on --coordinator="127.0.0.1:$port" \
    --processes="$processes" --process="$1" \
    > >(prefixed "$1") 2> >(prefixed "$1" >&2) &
  local pid=$!
  trap 'kill -TERM "$pid" 2>/dev/null || true' TERM
  trap 'kill -INT "$pid" 2>/dev/null || true' INT
  local code=0
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" && code=0 || code=$?; done
  [ "$code" = 0 ] || echo "$code" >>"$ended"
}

pids=()
for ((i = 0; i < processes; i++)); do
  one "$i" "$@" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM
trap 'kill -INT "${pids[@]}" 2>/dev/null || true' INT
for pid in "${pids[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done
done
code=$(head -n 1 "$ended")
exit "${code:-0}"
