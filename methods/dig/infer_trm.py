"""Writes DiG's seeds. Neither the diffusion model nor ImageNet weights are needed.

python methods/dig/infer_trm.py --name exp --load_epo 19 --dict                       seeds of the run's epoch 19
python methods/dig/infer_trm.py --name new --load_pretrained 69.3_pascal.pth --dict   of a released checkpoint
python methods/dig/infer_trm.py --name exp --load_epo 19 --dict --vis --crf           with pictures and dense CRF
python methods/dig/infer_trm.py --name exp --load_epo 19                              only the score, nothing written
torchrun --nproc_per_node 2 methods/dig/infer_trm.py --name exp --load_epo 19 --dict  shared by two processes
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from methods.dig.config import DiGConfig


def main() -> None:
    """Writes the seeds that the network's `foreground_maps` gives; see `common.seeds.script` for the steps."""
    setup = start(__doc__, DiGConfig, "dig_eccv24", SEEDS)

    from common.seeds.script import run_inference
    from methods.dig.face import FACE

    run_inference(setup, FACE)


if __name__ == "__main__":
    run_script(main)
