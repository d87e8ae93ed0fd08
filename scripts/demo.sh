#!/usr/bin/env bash
# CTI from nothing to scored seeds on generated images, in minutes on two CPU cores:
# demo data set -> train -> infer -> evaluate -> table and pictures. Sets up what is missing first.
# Exit code 1 if the seeds are not at least 35 mIoU above the better of two trivial seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=cti_demo
started=$SECONDS
# The network is so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== %s\n' "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes
step "Training CTI (configs/cti_demo.yaml)"
$python methods/cti/train_trm.py --name $name --exp cti_demo --overwrite
step "Writing seeds"
$python methods/cti/infer_trm.py --name $name --dict
step "Scoring seeds, and two trivial ones with the same code"
$python evaluation.py --name $name --task cam --dict_dir dict --list val
$python evaluation.py --name $name --trivial background --list val >/dev/null
$python evaluation.py --name $name --trivial first_label --list val >/dev/null
$python scripts/show_seeds.py --name $name --list val --count 8

step "Result, after $((SECONDS - started)) seconds"
$python scripts/seed_table.py --name $name --margin 35
echo "contact sheet (image, mask, seed, CAMs): experiment/$name/seeds_val.png"
echo "mIoU over the background threshold:      experiment/$name/eval_cam.png"
