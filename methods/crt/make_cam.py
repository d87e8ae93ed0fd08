"""Writes CRT's seeds, from the DeiT alone: at the images' size, and at a quarter of it for IRN.

python methods/crt/make_cam.py --name exp --dict                                    seeds of the run's last epoch
python methods/crt/make_cam.py --name exp --load_epo 4 --dict                       of epoch 4
python methods/crt/make_cam.py --name new --load_pretrained deits_cam.pth --dict    of the released weights
python methods/crt/make_cam.py --name exp --dict --vis --crf                        with pictures and dense CRF
python methods/crt/make_cam.py --name exp                                           only the score, nothing written
torchrun --nproc_per_node 2 methods/crt/make_cam.py --name exp --dict               shared by two processes

Two folders in experiment/NAME/: dict/<id>.npy, which is scored, drawn and refined, and cam/<id>.npy; with
--dict_dir other they are other/ and other_cam/. An interrupted call goes on where it stopped.
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from methods.crt.config import CRTConfig


def main() -> None:
    """Writes the seeds that `seed_maps` gives, at two sizes; see `common.seeds.script` for the steps."""
    setup = start(__doc__, CRTConfig, "crt_2022", SEEDS)

    from common.seeds.script import run_inference
    from methods.crt.face import FACE
    from methods.crt.seeds import write_folders

    run_inference(setup, FACE, write_folders)


if __name__ == "__main__":
    run_script(main)
