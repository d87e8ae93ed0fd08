#!/usr/bin/env bash
# Beyond the papers on generated images, on two CPU cores: seeds of the CTI and PCSS demos -> their mean, votes over
# segments, both -> differences with intervals; then configs/pipeline_demo_best.yaml: fusion -> vote -> CRF -> DeepLab.
# Takes the runs of scripts/demo.sh, and makes those that are missing. Sets up what is missing first.
#
#   bash scripts/demo_best.sh
#
# Exit code 1 if fusion or vote do not surely lift the seeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
python=.venv/bin/python
name=best_demo
started=$SECONDS
# The networks are so small that a second thread costs more than it gives, above all on a busy machine.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

step() { printf '\n== [%d s] %s\n' $((SECONDS - started)) "$*"; }
vote() {  # run, folder of seeds, folder of segments
  $python methods/segments/vote.py --name "$1" --exp segments_demo --seeds "$2" --segments "$3"
  $python evaluation.py --name "$1" --task cam --dict_dir dict --list val --card
}

for method in cti pcss; do
  [ -f experiment/${method}_demo/eval_cam_card.json ] || bash scripts/demo.sh $method
done
lists=data/shapes/ImageSets/Segmentation
head -n 300 $lists/train.txt >$lists/train_300.txt
rm -rf experiment/$name experiment/${name}_*
step "Seeds of the images that get masks, beside those of held-out images"
$python methods/cti/infer_trm.py --name cti_demo --dict infer.image_list=train_300 infer.eval_list=
$python methods/pcss/infer_pcss.py --name pcss_demo --dict infer.image_list=train_300 infer.eval_list=
for method in cti pcss; do
  $python evaluation.py --name ${method}_demo --task cam --dict_dir dict --list val --card
done
step "Segments of held-out images"
for segmenter in meanshift felzenszwalb slic; do
  $python scripts/make_segments.py --name ${name}_$segmenter --exp segments_demo --with $segmenter
  step "CTI's seeds voted over $segmenter"
  vote ${name}_$segmenter experiment/cti_demo/dict experiment/${name}_$segmenter/segments
done
step "CTI's seeds voted over the true regions: a bound"
$python scripts/prepare_data.py masks --source data/shapes/SegmentationClass --target data/shapes/regions --map 0=100
vote ${name}_true experiment/cti_demo/dict data/shapes/regions  # where the background is a region, too
step "The mean of both seeds, and its vote"
$python scripts/fuse_seeds.py --name ${name}_mean cti_demo pcss_demo --exp fusion_demo
$python evaluation.py --name ${name}_mean --task cam --dict_dir dict --list val --card
vote ${name}_both experiment/${name}_mean/dict experiment/${name}_meanshift/segments
$python scripts/show_segments.py --name ${name}_meanshift --list val

step "The pipeline (configs/pipeline_demo_best.yaml)"
$python scripts/run_pipeline.py --name $name --exp pipeline_demo_best
$python evaluation.py --name ${name}_fused --task cam --dict_dir dict --list train_300 --card
$python evaluation.py --name ${name}_vote --task cam --dict_dir dict --list train_300 --card
$python evaluation.py --name ${name}_crf --task png --dict_dir masks --list train_300 --card
deeplab=${name}_crf_deeplab
$python evaluation.py --name $deeplab --task png --dict_dir segs/val --list val --card
$python evaluation.py --name $deeplab --task png --dict_dir segs_crf/val --list val --card --out eval_png_crf
$python scripts/show_masks.py --name $deeplab --list val --masks segs/val segs_crf/val
$python scripts/report.py --name ${name}_both --against cti_demo

step "Result"
$python scripts/compare_runs.py cti_demo ${name}_{slic,felzenszwalb,meanshift,true,mean,both} \
  --require "${name}_meanshift>cti_demo" --require "${name}_both>cti_demo"
$python scripts/compare_runs.py pcss_demo ${name}_mean --require "${name}_mean>pcss_demo"
echo "report of the seeds beside CTI's:      experiment/${name}_both/report.html"
echo "segments:                              experiment/${name}_meanshift/segments_val.png"
echo "DeepLab (image, true mask, mask, CRF): experiment/$deeplab/masks_val.png"
