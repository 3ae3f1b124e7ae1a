#!/usr/bin/env bash
# Slurm for real, on this one machine: starts munge, slurmctld and slurmd in a temporary folder,
# trains the sample by launch/slurm.sbatch with two tasks, stops it by scancel's TERM, submits it
# again, sees it finish, and takes everything down.
#
#   apt-get install slurm-wlm munge && launch/try_slurm.sh [FLAGS_OF_drin_jax.main…]
#
# Needs root, since slurmd does, and port 6817 and 6818. PYTHON names another Python than
# .venv/bin/python, PORT the port where process 0 listens.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "error: $*" >&2; exit 1; }
for program in munged mungekey slurmctld slurmd sbatch scancel; do
  command -v "$program" >/dev/null || fail "no $program here; apt-get install slurm-wlm munge"
done
[ "$(id -u)" = 0 ] || fail "slurmd wants root"
folder=$(mktemp -d /tmp/try_slurm.XXXXXX)
chmod 755 "$folder"
export SLURM_CONF=$folder/slurm.conf JAX_PLATFORMS=cpu PYTHON=${PYTHON:-$PWD/.venv/bin/python}
host=$(hostname -s)
daemons=()
down() {
  scancel --full --signal=KILL $(squeue --noheader --format=%i 2>/dev/null) 2>/dev/null || true
  sleep 2
  kill -KILL "${daemons[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap down EXIT

socket=$folder/munge.socket
mungekey --create --keyfile="$folder/munge.key"
munged --foreground --force --key-file="$folder/munge.key" --socket="$socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
  --seed-file="$folder/munged.seed" 2>/dev/null &
daemons+=($!)
cat >"$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
StateSaveLocation=$folder
SlurmdSpoolDir=$folder
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
KillWait=120
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=try Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld -D 2>/dev/null &
daemons+=($!)
slurmd -D 2>/dev/null &
daemons+=($!)

until_true() {  # SECONDS WHAT COMMAND…
  local seconds=$1 what=$2
  shift 2
  for ((i = 0; i < seconds; i++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 1
  done
  tail -n 20 "$folder"/*.log "$folder"/*.out >&2 || true
  fail "$what: not within $seconds s"
}
idle() { sinfo --noheader --format=%t | grep -q idle; }
until_true 60 "a node that is idle" idle

submit() {
  sbatch --parsable --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --output="$folder/%j.out" \
    launch/slurm.sbatch --config=configs/sample.py --workdir="$folder/run" \
    --config.data.root="$folder/sample" "${flags[@]}"
}
gone() { [ -z "$(squeue --noheader --job="$1" 2>/dev/null)" ]; }
step_written() { grep -q "\"step\": $1," "$folder/run/metrics.jsonl"; }
flags=(--config.train.epochs=40 --config.train.patience=0 "$@")

job=$(submit)
until_true 600 "a step that is written" step_written 60
echo "job $job trains; scancel --signal=TERM"
scancel --signal=TERM "$job"
until_true 300 "the end of job $job" gone "$job"
grep -q "Exited with exit code 143" "$folder/$job.out" || { cat "$folder/$job.out"; fail "no exit code 143"; }
saved=$(ls "$folder/run/checkpoints" | sort -n | tail -n 1)
last=$(tail -n 1 "$folder/run/metrics.jsonl")
echo "job $job left with 143 after a line for $last; saved: step $saved"
[[ $last == "{\"step\": $saved,"* ]] || fail "the checkpoint is not of the last step"

job=$(submit)
until_true 900 "the end of job $job" gone "$job"
[ -e "$folder/run/report.json" ] || { cat "$folder/$job.out"; fail "no report"; }
grep "trained .* steps" "$folder/$job.out"
! grep -q "trained 1880 steps" "$folder/$job.out" || fail "it began anew"
echo "job $job went on from step $saved and finished"
