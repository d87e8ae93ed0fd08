"""Writes PCSS's seeds.

python methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict                    seeds of the run's epoch 59
python methods/pcss/infer_pcss.py --name new --load_pretrained 69.5_pascal.pth --dict   of a released checkpoint
python methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict --vis --crf          with pictures and dense CRF
python methods/pcss/infer_pcss.py --name exp --load_epo 59                           only the score, nothing written
torchrun --nproc_per_node 2 methods/pcss/infer_pcss.py --name exp --load_epo 59 --dict  shared by two processes
"""

from common.run.errors import run_script
from common.seeds.script import run_inference
from methods.pcss.config import PCSSConfig
from methods.pcss.model import PCSS


def main() -> None:
    """Seeds by the network's `MCTformer.foreground_maps`; the steps are those of `common.seeds.script`."""
    run_inference(__doc__, PCSSConfig, "pcss_eccv24", lambda config, classes: PCSS(config.model, classes))


if __name__ == "__main__":
    run_script(main)
