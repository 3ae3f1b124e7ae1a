#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on each of its hosts, over gcloud's ssh.
#
#   TPU=my-v5e-16 ZONE=europe-west4-b launch/tpu_pod.sh --config=configs/wikimel.py --workdir=/mnt/shared/wikimel
#
# Every host needs this repository at FOLDER (default: drin_jax, under the home folder) with its
# virtual environment and jax[tpu], and workdir and feature store on a file system that all see (a
# Filestore share or a mounted bucket). Hosts learn their number and process 0's address from the
# metadata server; they must reach each other at PORT. Ctrl-C ends only the
# ssh connections: to stop a run that saves, send SIGTERM to python on any host. The same command
# goes on. PROJECT, if set, is gcloud's project.
set -euo pipefail
: "${TPU:?set TPU to the name of the pod slice}" "${ZONE:?set ZONE to its zone}"
flags=$(printf ' %q' "$@")
command="cd ${FOLDER:-drin_jax}
about() { curl -sf -H 'Metadata-Flavor: Google' \"http://metadata.google.internal/computeMetadata/v1/instance/attributes/\$1\"; }
hosts=\$(about worker-network-endpoints | tr , '\n' | cut -d : -f 3)
exec ${PYTHON:-.venv/bin/python} -m drin_jax.main$flags --distributed=on \
  --coordinator=\$(echo \"\$hosts\" | head -n 1):${PORT:-29500} \
  --processes=\$(echo \"\$hosts\" | wc -l) --process=\$(about agent-worker-number)"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
  --worker=all --command="$command"
