"""Writes PCSS's seeds.

python methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict                       seeds of the run's epoch 59
python methods/pcss/infer_pcss.py --name new --load_pretrained FILE --dict              eccv24_pcss_wsss_69.5_pascal.pth
python methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict --vis --crf           with pictures and dense CRF
python methods/pcss/infer_pcss.py --name exp --load_epo 59                              only the score, nothing written
torchrun --nproc_per_node 2 methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict  shared by two processes
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from methods.pcss.config import PCSSConfig


def main() -> None:
    """Writes the seeds that the network's `foreground_maps` gives; see `common.seeds.script` for the steps."""
    setup = start(__doc__, PCSSConfig, "pcss_eccv24", SEEDS)

    from common.seeds.script import run_inference
    from methods.pcss.face import FACE

    run_inference(setup, FACE)


if __name__ == "__main__":
    run_script(main)
