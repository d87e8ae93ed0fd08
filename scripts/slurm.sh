#!/usr/bin/env bash
# An example of a training on several hosts under Slurm: adapt the lines with #SBATCH, then
#     sbatch scripts/slurm.sh methods/cti/train_trm.py --name exp
# One torchrun a host; together they are one run, with the global batch of train.batch_size. The repository, the data and
# experiment/ must lie on a file system that all hosts share. Slurm's warning signal has the training save and stop.
#SBATCH --job-name=wsss
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm-%j.txt
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch scripts/slurm.sh SCRIPT --name NAME [arguments]" >&2; exit 1; }
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-4}" \
    --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first:29500" "$@"
