#!/usr/bin/env bash
# ToCo on generated images, in minutes on two CPU cores: demo data set -> single-stage training -> masks of held-out
# images before and after the CRF, and seeds -> scores and pictures. Sets up what is missing first.
#
#   bash scripts/demo_toco.sh
#
# Exit code 1 if the masks are not at least 15 mIoU above the better of two trivial segmentations.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=toco_demo
started=$SECONDS
# The network is so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes
step "Training ToCo (configs/$name.yaml)"
$python methods/toco/train_toco.py --name $name --exp $name --overwrite
step "Segmenting held-out images"
$python methods/toco/infer_seg.py --name $name --crf
step "Writing and scoring seeds, and two trivial segmentations with the same code"
$python methods/toco/infer_cam.py --name $name --dict
$python evaluation.py --name $name --task png --dict_dir segs/val --list val --card
$python evaluation.py --name $name --task png --dict_dir segs_crf/val --list val --card --out eval_png_crf
$python evaluation.py --name $name --task cam --dict_dir dict --list val --card
$python evaluation.py --name $name --trivial background --list val --card >/dev/null
$python evaluation.py --name $name --trivial first_label --list val --card >/dev/null
$python scripts/show_masks.py --name $name --list val --masks segs/val segs_crf/val
$python scripts/plot_run.py $name

step "Result"
$python scripts/seed_table.py --name $name
$python scripts/seed_table.py --name $name --masks --margin 15
echo "contact sheet (image, true mask, segmentation, after the CRF, errors): experiment/$name/masks_val.png"
