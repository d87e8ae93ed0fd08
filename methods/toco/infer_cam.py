"""Writes ToCo's seeds: CAMs, auxiliary CAMs, or the segmentation's probabilities.

python methods/toco/infer_cam.py --name exp --dict                                 CAMs of the run's best weights
python methods/toco/infer_cam.py --name exp --load_epo 20000 --dict                of iteration 20000
python methods/toco/infer_cam.py --name new --load_pretrained voc_vit.pth --dict   of a released checkpoint
python methods/toco/infer_cam.py --name exp --dict --vis --crf                     with pictures and dense CRF
python methods/toco/infer_cam.py --name exp                                        only the score, nothing written
python methods/toco/infer_cam.py --name exp --dict --dict_dir aux infer.seed_map=cam_aux   auxiliary CAMs
python methods/toco/infer_cam.py --name exp --dict --dict_dir seg infer.seed_map=seg       probabilities
torchrun --nproc_per_node 2 methods/toco/infer_cam.py --name exp --dict            shared by two processes
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from methods.toco.config import WEIGHTS_FILE, ToCoConfig


def main() -> None:
    """Writes the seeds that `seed_maps` gives; see `common.seeds.script` for the steps."""
    setup = start(__doc__, ToCoConfig, "toco_cvpr23", SEEDS, file=WEIGHTS_FILE, unit="iteration")

    from common.seeds.script import run_inference
    from methods.toco.face import SEED_FACE

    run_inference(setup, SEED_FACE)


if __name__ == "__main__":
    run_script(main)
