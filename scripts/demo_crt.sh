#!/usr/bin/env bash
# CRT in one command on generated images, on two CPU cores: demo data set -> classifier -> seeds -> IRN -> masks -> scores
# -> pictures. Sets up what is missing first.
#
#   bash scripts/demo_crt.sh
#
# Exit code 1 if the seeds are not at least 10 mIoU above the trivial ones, or the masks not above the seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=crt_demo
started=$SECONDS
# The networks are so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes
lists=data/shapes/ImageSets/Segmentation
head -n 300 $lists/train.txt >$lists/train_300.txt
rm -rf experiment/$name experiment/${name}_cam experiment/${name}_irn
step "Classifier, seeds, IRN, masks (configs/crt_demo.yaml)"
$python methods/crt/run_sample.py --name $name --exp crt_demo
step "Evaluation cards, trivial seeds, pictures"
$python evaluation.py --name ${name}_cam --task cam --dict_dir dict --list train_300 --card
$python evaluation.py --name ${name}_irn --task png --dict_dir masks --list train_300 --card
for kind in background first_label; do
  $python evaluation.py --name ${name}_cam --trivial $kind --list train_300 --card >/dev/null
done
$python scripts/show_seeds.py --name ${name}_cam --list train_300
$python scripts/show_masks.py --name ${name}_irn --list train_300

step "Result"
$python scripts/seed_table.py --name ${name}_cam --margin 10
$python scripts/pipeline_table.py --name $name --sample --gain 0
echo "seeds (image, true mask, seed):   experiment/${name}_cam/seeds_train_300.png"
echo "masks (image, true mask, mask):   experiment/${name}_irn/masks_train_300.png"
