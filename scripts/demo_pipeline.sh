#!/usr/bin/env bash
# From seeds to a segmentation network on generated images, three ways, on two CPU cores: demo data set -> CTI -> seeds ->
# masks by a dense CRF alone, by PSA and by IRN -> a small DeepLab of each -> table. Sets up what is missing first.
#
#   bash scripts/demo_pipeline.sh
#
# Exit code 1 if one of the three does not raise the seeds by at least 3 mIoU, or its DeepLab is not above the seeds of
# held-out images.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=pipeline_demo
started=$SECONDS
# The networks are so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }

step "Demo data set"
$python scripts/make_shapes.py --root data/shapes
lists=data/shapes/ImageSets/Segmentation
head -n 300 $lists/train.txt >$lists/train_300.txt
rm -rf experiment/$name experiment/${name}_{crf,psa,irn} experiment/${name}_{crf,psa,irn}_deeplab
step "Training CTI (configs/cti_demo.yaml)"
$python methods/cti/train_trm.py --name $name --exp cti_demo
step "Writing seeds of held-out images and of those that get masks"
$python methods/cti/infer_trm.py --name $name --dict
$python methods/cti/infer_trm.py --name $name --dict infer.image_list=train_300 infer.eval_list=
$python evaluation.py --name $name --task cam --dict_dir dict --list val --card
$python evaluation.py --name $name --task cam --dict_dir dict --list train_300 --card --out eval_cam_train_300
for refine in crf psa irn; do
  step "Seeds -> $refine -> DeepLab (configs/pipeline_demo_$refine.yaml)"
  $python scripts/run_pipeline.py --name $name --exp pipeline_demo_$refine --from seeds --refine $refine --segment deeplab
  deeplab=${name}_${refine}_deeplab
  $python evaluation.py --name ${name}_$refine --task png --dict_dir masks --list train_300 --card
  $python evaluation.py --name $deeplab --task png --dict_dir segs/val --list val --card
  $python evaluation.py --name $deeplab --task png --dict_dir segs_crf/val --list val --card --out eval_png_crf
  $python scripts/show_masks.py --name ${name}_$refine --list train_300
  $python scripts/show_masks.py --name $deeplab --list val --masks segs/val segs_crf/val
done
$python scripts/report.py --name $name

step "Result"
$python scripts/pipeline_table.py --name $name --refine crf psa irn --gain 3
echo "report of the seeds and the stages:        experiment/$name/report.html"
echo "masks (image, true mask, mask):            experiment/${name}_{crf,psa,irn}/masks_train_300.png"
echo "DeepLab (image, true mask, mask, CRF):     experiment/${name}_{crf,psa,irn}_deeplab/masks_val.png"
