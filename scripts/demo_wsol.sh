#!/usr/bin/env bash
# CRT's object localisation on generated images in CUB's layout, in minutes on one CPU core: demo data set -> training
# -> boxes of the test images, their scores, pictures and report. Sets up what is missing first.
#
#   bash scripts/demo_wsol.sh
#
# Exit code 1 if the last weights' boxes, given the class, are not right in more than 60 % of the test images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=crt_cub_demo
started=$SECONDS
# The networks are so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }

step "Demo data set"
$python scripts/make_cub_shapes.py --root data/cub_shapes
step "Training (configs/$name.yaml)"
$python methods/crt/train_wsol.py --name $name --exp $name --overwrite
$python scripts/plot_run.py $name

step "Result on the test images"
status=0
$python methods/crt/eval_wsol.py --name $name --vis --least 60 || status=$?
$python scripts/report.py --name $name
echo "report of the boxes, one page to look at:           experiment/$name/report.html"
echo "true boxes (green), found ones (red), CAMs:         experiment/$name/wsol_best.png, wsol_last.png"
exit $status
