#!/usr/bin/env bash
# DiG on small generated images, in minutes on two CPU cores: demo data set -> diffusion model -> classifier guided by it,
# and one without any diffusion model -> seeds of both -> scores and pictures. Sets up what is missing first.
#
#   bash scripts/demo_dig.sh
#
# Exit code 1 if the guided classifier's seeds are not at least 15 mIoU above the better of two trivial seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=dig_demo
started=$SECONDS
# glibc returns the U-Net's large arrays to the system after every use; keeping them nearly halves the time of a step.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes_small --size 40
step "Training the diffusion model (configs/diffusion_dig_demo.yaml)"
$python methods/dig/train_diffusion.py --name ${name}_diffusion --exp diffusion_dig_demo --overwrite
step "Training DiG with all five losses (configs/dig_demo.yaml)"
$python methods/dig/train_trm.py --name $name --exp dig_demo --overwrite
step "Training DiG without any diffusion model"
$python methods/dig/train_trm.py --name ${name}_plain --exp dig_demo --W 1 0 0 0 0 --overwrite
step "Writing and scoring seeds, and two trivial ones with the same code"
for run in $name ${name}_plain; do
  $python methods/dig/infer_trm.py --name $run --dict
  $python evaluation.py --name $run --task cam --dict_dir dict --list val --card
  $python evaluation.py --name $run --trivial background --list val --card >/dev/null
  $python evaluation.py --name $run --trivial first_label --list val --card >/dev/null
done
$python scripts/show_seeds.py --name $name --list val --count 8

step "Result: without any diffusion model (W = 1 0 0 0 0), and guided"
$python scripts/seed_table.py --name ${name}_plain
$python scripts/seed_table.py --name $name --margin 15
echo "images made from noise:                  experiment/${name}_diffusion/previews/"
echo "loss of the diffusion model:             experiment/${name}_diffusion/loss.png"
echo "contact sheet (image, true mask, seed, errors, CAMs): experiment/$name/seeds_val.png"
