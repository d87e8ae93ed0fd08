"""Writes CTI's seeds.

python methods/cti/infer_trm.py --name exp --load_epo 59 --dict                       seeds of the run's epoch 59
python methods/cti/infer_trm.py --name new --load_pretrained 69.5_pascal.pth --dict   of a released checkpoint
python methods/cti/infer_trm.py --name exp --load_epo 59 --dict --vis --crf           with pictures and dense CRF
python methods/cti/infer_trm.py --name exp --load_epo 59                              only the score, nothing written
python methods/cti/infer_trm.py --name exp --load_epo 59 --faithfulness               a score that needs no masks
torchrun --nproc_per_node 2 methods/cti/infer_trm.py --name exp --load_epo 59 --dict  shared by two processes
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from methods.cti.config import CTIConfig


def main() -> None:
    """Writes the seeds that the network's `foreground_maps` gives; see `common.seeds.script` for the steps."""
    setup = start(__doc__, CTIConfig, "cti_cvpr24", SEEDS)

    from common.seeds.script import run_inference
    from methods.cti.face import FACE

    run_inference(setup, FACE)


if __name__ == "__main__":
    run_script(main)
