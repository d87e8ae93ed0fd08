"""What the stages share that refine a folder of seeds: their flags, run folders and seeds.

A stage has several scripts, which write into one run folder: one before the training makes what is trained on, one
after it makes the masks.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import config_path, leaves, load_config, option, parse_config, script_parser
from common.data.dataset import ImageSet
from common.dist import start_processes
from common.errors import UserError, preview
from common.run import RunFolder
from common.runtime import Runtime
from common.script import Setup, open_inference_run, train_arguments
from common.seeds import FORMATS, Seed, find_seed, read_seed


@dataclass
class SeedsConfig:
    """The seeds that are refined: any method's, in either format."""

    folder: str = option("", "Folder of seed files, such as experiment/exp/dict.", flag="--seeds")

    def path(self) -> Path:
        """The folder.

        Raises:
            UserError: none is named, or there is none.
        """
        if not self.folder:
            raise UserError("which seeds? Name their folder: --seeds experiment/NAME/dict")
        if not Path(self.folder).is_dir():
            raise UserError(f"no folder of seeds {self.folder} (from {Path.cwd()}); an inference with --dict writes it")
        return Path(self.folder)


def seed_settings(folder: Path) -> dict[str, Any]:
    """What identifies the seeds in a folder, for the settings of what is made of them: where, and by what inference."""
    stamp = folder.parent / f"{folder.name}.json"
    return {"seeds": str(folder), "made_by": json.loads(stamp.read_text()) if stamp.is_file() else {}}


def require_maps(images: ImageSet, folder: Path, made_by: str) -> None:
    """Makes sure that every image has a file of maps in a folder.

    Args:
        made_by: the command that writes them, for the message.

    Raises:
        UserError: some have none; they are named.
    """
    there = {path.stem for path in folder.iterdir() if path.suffix[1:] in FORMATS} if folder.is_dir() else set()
    missing = [image_id for image_id in dict.fromkeys(images.ids) if image_id not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(set(images.ids))} images of list {images.list_name!r} have no file in "
            f"{folder}: {preview(missing, 3)}. Make them with: {made_by}"
        )


def read_maps(folder: Path, image_id: str, size: tuple[int, int]) -> Seed:
    """An image's file of maps (seeds, or CRF scores), which must be of its size (H, W).

    Raises:
        UserError: it is missing, damaged, or of another size.
    """
    path = find_seed(folder, image_id)
    maps = read_seed(path)
    shapes = {values.shape for values in maps.values()}
    if shapes - {tuple(size)}:
        raise UserError(f"{path} holds maps of {shapes.pop()}, but the image is of {tuple(size)} pixels (H, W)")
    return maps


class StageRun(RunFolder):
    """A run folder into which other scripts write before the training.

    What they have written is not in its way, and not deleted with what a former training left.
    """

    def __init__(self, name: str, inputs: Sequence[str]) -> None:
        """Names a run; ``inputs`` are the folders in it that the training reads."""
        super().__init__(name)
        self.inputs = set(inputs)

    def refuse_if_used(self, resume: bool = False, overwrite: bool = False) -> None:
        """As `RunFolder.refuse_if_used`."""
        if resume or self._outputs():
            super().refuse_if_used(resume, overwrite)

    def create(self, overwrite: bool = False) -> None:
        """As `RunFolder.create`."""
        for path in self._outputs() if overwrite else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        super().create()

    def _outputs(self) -> list[Path]:
        there = self.path.iterdir() if self.path.is_dir() else ()
        return [path for path in there if path.name not in self.inputs]


def start_preparation(description: str, cls: type, default_exp: str, reads: Sequence[str]) -> Setup:
    """The beginning of a script that makes what a training reads; as `common.script.start_training`.

    Args:
        reads: sections and keys of the configuration that mean something to the script.
    """
    args, overrides = parse_config(_stage_parser(description, cls, default_exp, reads, "what the script made before"))
    processes, run = start_processes(), RunFolder(args.name)
    own = run.config if run.config.is_file() and not args.exp else config_path(args.exp or default_exp)
    config = load_config(cls, own, overrides)
    return Setup(args, config, run, processes, Runtime(config.runtime, processes))


def start_stage_training(description: str, cls: type, default_exp: str, inputs: Sequence[str]) -> Setup:
    """`common.script.start_training` in a folder that holds ``inputs`` already."""
    args, overrides = train_arguments(description, cls, default_exp)
    processes, run = start_processes(), StageRun(args.name, inputs)
    run.refuse_if_used(args.resume, args.overwrite)
    config = load_config(cls, run.existing().config if args.resume else config_path(args.exp), overrides)
    return Setup(args, config, run, processes, Runtime(config.runtime, processes))


def start_refinement(description: str, cls: type, default_exp: str, reads: Sequence[str]) -> Setup:
    """The beginning of the script that makes masks; see `start_preparation`."""
    parser = _stage_parser(description, cls, default_exp, reads, "masks that are there")
    parser.add_argument("--load_epo", type=int, help="epoch whose weights are used; default: the last one")
    parser.add_argument(
        "--load_pretrained", type=Path, help="a checkpoint file from anywhere, instead of the run's own"
    )
    parser.set_defaults(default_exp=default_exp)
    args, overrides = parse_config(parser)
    processes = start_processes()
    config, run = open_inference_run(args, overrides, cls)
    return Setup(args, config, run, processes, Runtime(config.runtime, processes))


def _stage_parser(
    description: str, cls: type, default_exp: str, reads: Sequence[str], made: str
) -> argparse.ArgumentParser:
    read = tuple(f"{name}." for name in reads)
    parser = script_parser(
        description, cls, unused=[leaf.key for leaf in leaves(cls()) if not f"{leaf.key}.".startswith(read)]
    )
    parser.add_argument("--name", required=True, help="name of the run: everything goes to experiment/NAME/")
    parser.add_argument(
        "--exp", default="", help=f"experiment YAML; default: the run's own configuration, else {default_exp}"
    )
    parser.add_argument("--overwrite", action="store_true", help=f"delete {made}, and start anew")
    return parser
