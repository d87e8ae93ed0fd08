#!/usr/bin/env bash
# The paper's command for CUB-200-2011: training, then scores and pictures of all weights.
#   bash methods/crt/train_val_cub.sh 0,1 deit small 224        GPUs, backbone, its size, side of the images in pixels
# The run is experiment/wsol_<size>; PYTHON names another interpreter. More settings: methods/crt/train_wsol.py --help.
set -euo pipefail
if [ $# -ne 4 ] || [ "$2" != deit ]; then
    echo "error: give GPUs, deit, its size (tiny, small, base) and the side of the images: 0,1 deit small 224" >&2
    exit 1
fi
export CUDA_VISIBLE_DEVICES=$1
gpus=(${1//,/ })
run="${PYTHON:-python} -m torch.distributed.run --standalone --nproc_per_node ${#gpus[@]}"
$run methods/crt/train_wsol.py --name "wsol_$3" "model.deit.arch=deit_$3_patch16_224" "model.deit.img_size=$4"
$run methods/crt/eval_wsol.py --name "wsol_$3" --vis
