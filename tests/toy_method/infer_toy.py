"""Writes the toy's seeds.

python -m tests.toy_method.infer_toy --name toy --dict             seeds of the run's best epoch, else of its last one
python -m tests.toy_method.infer_toy --name toy --load_epo 9       only the score of epoch 9, nothing written
"""

from common.run.errors import run_script
from common.run.script import SEEDS, start
from tests.toy_method.config import ToyConfig


def main() -> None:
    """Seeds by the network's `Toy.foreground_maps`; the steps are those of `common.seeds.script`."""
    setup = start(__doc__, ToyConfig, "tests/toy_method/toy.yaml", SEEDS)

    from common.seeds.script import run_inference
    from tests.toy_method.face import FACE

    run_inference(setup, FACE)


if __name__ == "__main__":
    run_script(main)
