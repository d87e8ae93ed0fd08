#!/usr/bin/env bash
# The paper's command for scores and pictures of a file of weights on CUB-200-2011.
#   bash methods/crt/val_cub.sh 0 deit small 224 model_best.pth   GPUs, backbone, its size, side of the images, weights
# The run is experiment/wsol_<name of the file>; PYTHON names another interpreter.
set -euo pipefail
if [ $# -ne 5 ] || [ "$2" != deit ]; then
    echo "error: give GPUs, deit, its size, the side of the images and a file: 0 deit small 224 model_best.pth" >&2
    exit 1
fi
export CUDA_VISIBLE_DEVICES=$1
gpus=(${1//,/ })
name=$(basename "$5")
${PYTHON:-python} -m torch.distributed.run --standalone --nproc_per_node ${#gpus[@]} methods/crt/eval_wsol.py \
    --name "wsol_${name%.*}" --load_pretrained "$5" --vis "model.deit.arch=deit_$3_patch16_224" "model.deit.img_size=$4"
