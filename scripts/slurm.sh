#!/usr/bin/env bash
# A sweep as a Slurm job, from a checkout on storage that all nodes share, with its .venv (`make .venv/installed`):
#
#   sbatch scripts/slurm.sh --preset nih512 --set compute.concurrent_trials=4 --out runs/first
#
# The arguments are those of `python -m sweep.run`. Options of sbatch before the script's name win over those below, for
# example `sbatch --nodes=4 --gpus-per-node=1 --partition=gpu scripts/slurm.sh ...`. A minute before the time limit Slurm
# sends SIGTERM, on which the sweep closes its records; the same command goes on with it.
#SBATCH --job-name=radiograph-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --output=%x-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?\`scripts/slurm.sh\` must be run by Slurm, but got no job. Submit it: sbatch scripts/slurm.sh}"
test -x .venv/bin/ray || {
  echo "\`.venv\` must be in $PWD, but got none. Make it with \`make .venv/installed\` and submit from that folder." >&2
  exit 1
}
PATH=$PWD/.venv/bin:$PATH

# Of this job alone: the port, the folder and the token, which srun hands on in the environment.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun no longer takes it from the job
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname -I | cut -d ' ' -f 1)
port=$((20000 + SLURM_JOB_ID % 10000))
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
unset OMP_NUM_THREADS # Ray gives every process as many threads as CPUs where this is not set

srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" ray start --head --block --num-cpus="$SLURM_CPUS_PER_TASK" \
  --node-ip-address="$head" --port="$port" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --include-dashboard=false &
for _ in {1..120}; do (: <>"/dev/tcp/$head/$port") 2>/dev/null && break || sleep 1; done
if ((SLURM_JOB_NUM_NODES > 1)); then # a node that is too busy to join in time, or whose Ray dies, tries again
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="${nodes[0]}" \
    bash -c "until ray start --address=$head:$port --block --num-cpus=$SLURM_CPUS_PER_TASK; do sleep 5; done" &
fi

# In this shell's place, so that Slurm's signal comes to the sweep; Slurm ends Ray with the job.
exec python -m sweep.run --set compute.address="$head:$port" --set compute.may_grow=true "$@"
