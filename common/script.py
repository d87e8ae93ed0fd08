"""What the scripts of all methods share before their work starts: flags, configuration, run folder."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import config_path, leaves, load_config, parse_config, save_config, script_parser
from common.dist import Processes, start_processes
from common.errors import UserError
from common.run import RunFolder
from common.runtime import Runtime


@dataclass
class Setup:
    """What a script has when it begins: command line, configuration, run folder, processes, device."""

    args: argparse.Namespace
    config: Any
    run: RunFolder
    processes: Processes
    runtime: Runtime


def start_training(description: str, cls: type, default_exp: str) -> Setup:
    """The beginning of a training script; seeds every generator.

    Args:
        description: the script's docstring, for ``--help``.
        cls: the method's configuration.
        default_exp: the experiment without ``--exp``.
    """
    args, overrides = train_arguments(description, cls, default_exp)
    processes = start_processes()
    config, run = open_training_run(args, overrides, cls)
    return Setup(args, config, run, processes, Runtime(config.runtime, processes))


def start_inference(description: str, cls: type, default_exp: str) -> Setup:
    """The beginning of a script that makes seeds; as `start_training`."""
    return _start(infer_arguments(description, cls, default_exp), cls)


def start_segmentation(description: str, cls: type, default_exp: str, section: str = "infer") -> Setup:
    """The beginning of a script that makes masks of a segmentation network; as `start_training`.

    Args:
        section: where the configuration has its `SegmentConfig`.

    Raises:
        UserError: an archive for VOC's server is asked for of another data set.
    """
    setup = _start(segment_arguments(description, cls, default_exp, section=section), cls)
    if setup.args.submission and setup.config.data.dataset != "voc12":
        raise UserError(f"--submission is for VOC's server; the data set is {setup.config.data.dataset}")
    return setup


def _start(parsed: tuple[argparse.Namespace, list[str]], cls: type) -> Setup:
    args, overrides = parsed
    processes = start_processes()
    config, run = open_inference_run(args, overrides, cls)
    return Setup(args, config, run, processes, Runtime(config.runtime, processes))


def train_arguments(
    description: str, cls: type, default_exp: str, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a training script's command line: ``(args, configuration overrides)``.

    Validation reads the sections ``infer`` and ``eval`` as well, but the papers' flags of the same name mean ``train``.
    """
    parser = script_parser(description, cls, unused=("infer",))
    parser.add_argument("--name", required=True, help="name of the run: everything goes to experiment/NAME/")
    parser.add_argument(
        "--exp", default=default_exp, help="experiment: a YAML in configs/ or a path to one (default: %(default)s)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the run's last checkpoint, with the run's own configuration"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete what the run folder holds and start anew")
    return parse_config(parser, argv)


def open_training_run(args: argparse.Namespace, overrides: list[str], cls: type) -> tuple[Any, RunFolder]:
    """The configuration and run folder of a training, new or resumed; `start_run` makes the folder.

    Raises:
        UserError: the configuration is wrong, or the folder is in use or not there.
    """
    run = RunFolder(args.name)
    run.refuse_if_used(args.resume, args.overwrite)
    if args.resume and not run.existing().config.is_file():
        raise UserError(f"nothing to resume: no {run.config}")
    return load_config(cls, run.config if args.resume else config_path(args.exp), overrides), run


def infer_arguments(
    description: str, cls: type, default_exp: str, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line of a script that makes seeds: ``(args, configuration overrides)``."""
    parser = _inference_parser(description, cls, default_exp, "infer")
    parser.add_argument("--dict", action="store_true", help="write seed files to the run's folder --dict_dir")
    parser.add_argument(
        "--dict_dir", default="dict", help="folder for the seeds inside the run folder (default: %(default)s)"
    )
    parser.add_argument("--vis", action="store_true", help="with --dict: draw seeds over images into vis/")
    parser.add_argument(
        "--crf", action="store_true", help="with --dict: refine the seeds by dense CRF into crf/<alpha>/"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete seeds of other settings in the folder")
    args, overrides = parse_config(parser, argv)
    if (args.vis or args.crf) and not args.dict:
        raise UserError("--vis and --crf work on seed files: add --dict")
    return args, overrides


def segment_arguments(
    description: str, cls: type, default_exp: str, argv: Sequence[str] | None = None, section: str = "infer"
) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line of a script that makes masks; ``section`` is that of `start_segmentation`."""
    parser = _inference_parser(description, cls, default_exp, section)
    parser.add_argument("--crf", action="store_true", help="also refine by dense CRF, into segs_crf/<list>/")
    parser.add_argument("--overwrite", action="store_true", help="delete the masks in the list's folders")
    pack = "pack the masks (with --crf the refined ones) for VOC's server"
    parser.add_argument(
        "--submission", action="store_const", const="comp6", help=f"{pack}, competition comp6: any training data"
    )
    parser.add_argument(
        "--comp5", action="store_const", const="comp5", dest="submission", help=f"{pack}, comp5: trained on VOC alone"
    )
    return parse_config(parser, argv)


def _inference_parser(description: str, cls: type, default_exp: str, section: str) -> argparse.ArgumentParser:
    """Flags of every inference. A section within ``infer`` belongs to a script of its own."""
    read, keys = ("data", "model", section, "eval", "runtime"), [leaf.key for leaf in leaves(cls())]
    unused = [
        key for key in keys
        if not key.startswith(tuple(f"{name}." for name in read))
        or (section == "infer" and key.startswith("infer.segment."))
    ]  # fmt: skip
    parser = script_parser(description, cls, unused=(*unused, "runtime.num_workers"))
    parser.add_argument("--name", required=True, help="name of the run, experiment/NAME/")
    parser.add_argument(
        "--exp", default="", help=f"experiment YAML; default: the run's own configuration, else {default_exp}"
    )
    parser.add_argument(
        "--load_epo", type=int,
        help="epoch (iteration, where checkpoints are numbered so) that is used; default: the best, else the last one",
    )  # fmt: skip
    parser.add_argument(
        "--load_pretrained", type=Path, help="a checkpoint file from anywhere, used instead of the run's own"
    )
    parser.set_defaults(default_exp=default_exp)
    return parser


def open_inference_run(args: argparse.Namespace, overrides: list[str], cls: type) -> tuple[Any, RunFolder]:
    """The configuration and run folder of an inference; with ``--load_pretrained`` `start_run` may have to make it.

    Raises:
        UserError: the configuration is wrong, or there is no such run.
    """
    run = RunFolder(args.name)
    if args.load_pretrained is None:
        run.existing()
    own = run.config if run.config.is_file() and not args.exp else config_path(args.exp or args.default_exp)
    return load_config(cls, own, overrides), run


def start_run(
    run: RunFolder, config: Any, processes: Processes, overwrite: bool = False, keep_config: bool = False
) -> None:
    """Makes the run folder and records the configuration in it.

    Called when all input is known to be there, so that a run that cannot start leaves nothing behind, and one that
    cannot be resumed as asked nothing changed.

    Args:
        overwrite: Whether to delete what the folder holds.
        keep_config: Whether a configuration that is there already stays (that of the training).
    """
    processes.barrier()  # every process has looked at the folder
    if processes.is_main:
        run.create(overwrite)
        if not (keep_config and run.config.is_file()):
            save_config(config, run.config)
    processes.barrier()


def start(doc: str, cls: type, default_exp: str, *, inputs: Sequence[str] = ()) -> Setup:
    """Stands in until every script starts by one function."""
    from common.refine import start_stage_training

    return start_stage_training(doc, cls, default_exp, inputs) if inputs else start_training(doc, cls, default_exp)
