#!/usr/bin/env bash
# A method from nothing to scored seeds on generated images, in minutes on two CPU cores:
# demo data set -> train -> infer -> evaluate -> table and pictures. Sets up what is missing first.
#
#   bash scripts/demo.sh [cti|pcss]
#
# Exit code 1 if the seeds are not above the better of two trivial seeds by the method's margin.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
method=${1:-cti}
case $method in
  cti) train=train_trm.py infer=infer_trm.py margin=35 ;;
  pcss) train=train_pcss.py infer=infer_pcss.py margin=20 ;;
  *) echo "error: no demo of '$method'; there are: cti, pcss" >&2; exit 2 ;;
esac
bash scripts/setup.sh
python=.venv/bin/python
name=${method}_demo
started=$SECONDS
# The network is so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== %s\n' "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes
step "Training $method (configs/$name.yaml)"
$python methods/$method/$train --name $name --exp $name --overwrite
step "Writing seeds"
$python methods/$method/$infer --name $name --dict
step "Scoring seeds, and two trivial ones with the same code"
$python evaluation.py --name $name --task cam --dict_dir dict --list val --card
$python evaluation.py --name $name --trivial background --list val --card >/dev/null
$python evaluation.py --name $name --trivial first_label --list val --card >/dev/null
$python scripts/show_seeds.py --name $name --list val --count 8

step "Result, after $((SECONDS - started)) seconds"
$python scripts/seed_table.py --name $name --margin $margin
echo "contact sheet (image, true mask, seed, errors, CAMs): experiment/$name/seeds_val.png"
echo "mIoU over the background threshold:      experiment/$name/eval_cam.png"
