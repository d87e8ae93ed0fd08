"""One way to start a script: command line, configuration, run folder; then processes and device.

Mistakes of a user are reported before this module imports PyTorch, which the first three steps do not need.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from common.run.command import number, parse_config, script_parser
from common.run.config import at_least, config_path, each_method, load_config, save_config
from common.run.errors import UserError
from common.run.files import require_weights, sweep
from common.run.folder import EPOCH_FILE, SEEDS_DIR, RunFolder, epoch_checkpoint, last_checkpoints
from common.run.method import experiment_of
from common.run.needs import DataSection, Needs, image_lists
from common.run.papers import PaperFlags

if TYPE_CHECKING:
    from common.run.device import Runtime
    from common.run.options import RuntimeConfig
    from common.run.processes import Processes


class RunConfig(Protocol):
    """A configuration with a data set, processes and a device.

    Attributes:
        method: the name of its method, as in the entry ``method`` of its YAMLs.
    """

    method: ClassVar[str]
    runtime: "RuntimeConfig"

    @property
    def data(self) -> DataSection:
        """The section that names the data set."""


C = TypeVar("C")
R = TypeVar("R", bound=RunConfig)


@dataclass
class Setup(Generic[C]):
    """Arguments, configuration, run folder, processes and device of a script whose work begins.

    Attributes:
        weights: the file of weights to use; None for a training, and for a script that chooses them itself.
    """

    args: argparse.Namespace
    config: C
    run: RunFolder
    processes: "Processes"
    runtime: "Runtime"
    weights: Path | None = None
    averaged: list[Path] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The name of the script's method or stage."""
        return getattr(self.config, "method", "")


@dataclass(frozen=True)
class Usage:
    """How a kind of script is called.

    Attributes:
        kind: one word for the kind, in lower case the name under which scripts import it.
        overwrite: help of ``--overwrite``; empty: there is no such flag.
        is_training: whether it begins a run, or resumes it under ``--resume``; other scripts take the configuration of
            an existing run.
        weights: name of the run's weights that are used without ``--load_epo`` and ``--load_pretrained``, for the help;
            empty: none, and the run need not exist.
        flags: further flags, and the arguments that `argparse` needs for them.
        words: the configuration key, a list, that takes the words on the command line that are no ``key=value``; empty:
            there may be none.
        reads: sections and keys of the configuration that it reads (None: all); shown in ``--help``.
        ignores: exceptions among them, which it does not read.
        check: raises a `UserError` where flags contradict each other or the configuration.
        unread: keys of image lists that it does not read under these arguments and configuration.
    """

    kind: str
    overwrite: str = ""
    is_training: bool = False
    weights: str = ""
    flags: tuple[tuple[str, dict[str, Any]], ...] = ()
    words: str = ""
    reads: tuple[str, ...] | None = None
    ignores: tuple[str, ...] = ()
    check: Callable[[argparse.Namespace, Any], None] = lambda args, config: None
    unread: Callable[[argparse.Namespace, Any], Sequence[str]] = lambda args, config: ()


def _check_seeds(args: argparse.Namespace, config: Any) -> None:
    RunFolder(args.name).below(args.dict_dir, "--dict_dir")
    if (args.vis or args.crf) and not args.dict:
        raise UserError("--vis and --crf work on seed files: add --dict")
    if args.faithfulness and args.dict:
        raise UserError("--faithfulness scores the maps and writes no seeds: leave out --dict, or call it twice")


def _unread_by_seeds(args: argparse.Namespace, config: Any) -> Sequence[str]:
    """Without ``--dict`` nothing is stored, and the scored images alone are read."""
    return () if args.dict or not config.infer.eval_list else ("infer.image_list",)


def _check_masks(args: argparse.Namespace, config: Any) -> None:
    if args.submission and config.data.dataset != "voc12":
        raise UserError(f"--submission is for VOC's server; the data set is {config.data.dataset}")


def _last_k(text: str) -> int:
    """The number of checkpoints in a text like last5."""
    number = text.removeprefix("last")
    if number == text or not number.isdecimal() or int(number) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form lastK with a number K from 2, such as last5")
    return int(number)


_AVERAGE = (
    "--average", {
        "type": _last_k, "metavar": "lastK",
        "help": "use the mean of the weights of the last K epoch files, up to --load_epo if it is given",
    },
)  # fmt: skip
_PACK = "pack the masks (with --crf the refined ones) for VOC's server"

# Validation reads the section infer as well, but the papers' flags of the same names mean train.
TRAINING = Usage(
    kind="training",
    overwrite="delete the contents of the run folder and start anew", is_training=True, ignores=("infer",),
)  # fmt: skip
SEEDS = Usage(
    kind="seeds",
    overwrite="delete seeds of other settings in the folder",
    weights="the best, else the last one",
    flags=(
        ("--dict", {"action": "store_true", "help": "write seed files to the run's folder --dict_dir"}),
        ("--dict_dir", {
            "default": SEEDS_DIR, "help": "folder for the seeds inside the run folder (default: %(default)s)",
        }),
        ("--faithfulness", {
            "action": "store_true", "help": "score the maps without masks: deletion and insertion",
        }),
        ("--vis", {"action": "store_true", "help": "with --dict: draw seeds over images into vis/"}),
        ("--crf", {
            "action": "store_true", "help": "with --dict: refine the seeds by dense CRF into crf/<alpha>/",
        }),
        _AVERAGE,
    ),
    reads=("data", "model", "infer", "eval", "runtime"),
    ignores=("infer.segment", "runtime.num_workers"),  # for scripts that make masks, and for trainings
    check=_check_seeds,
    unread=_unread_by_seeds,
)  # fmt: skip
MASKS = Usage(
    kind="masks",
    overwrite="delete the masks in the list's folders",
    weights="the best, else the last one",
    flags=(
        ("--crf", {"action": "store_true", "help": "also refine by dense CRF, into segs_crf/<list>/"}),
        _AVERAGE,
        ("--submission", {
            "action": "store_const", "const": "comp6", "help": f"{_PACK}, competition comp6: any training data",
        }),
        ("--comp5", {
            "action": "store_const", "const": "comp5", "dest": "submission",
            "help": f"{_PACK}, comp5: trained on VOC alone",
        }),
    ),
    reads=("data", "model", "infer", "eval", "runtime"),
    ignores=("runtime.num_workers",),
    check=_check_masks,
)  # fmt: skip
PREPARATION = Usage(kind="preparation", overwrite="delete earlier results of the script, and start anew")
SEGMENTING = Usage(kind="segmenting", overwrite="delete existing segments, and start anew")
FUSION = Usage(
    kind="fusion", overwrite="delete existing seeds of other settings, and start anew", words="fuse.runs",
    flags=(
        ("--search", {
            "metavar": "LIST", "help": "fuse nothing: try pairs of the runs and all rules on a list with true masks",
        }),
    ),
)  # fmt: skip
REFINEMENT = Usage(
    kind="refinement", overwrite="delete existing masks, and start anew", weights="the last one",
)  # fmt: skip


def start(
    doc: str, cls: type[R], default_exp: str, usage: Usage = TRAINING, *, reads: Sequence[str] | None = None,
    inputs: Sequence[str] = (), file: str = EPOCH_FILE, unit: str = "epoch", paper: PaperFlags | None = None,
) -> Setup[R]:  # fmt: skip
    """Begins a script: parses the command line, checks configuration and run folder, starts processes and device.

    Nothing is written, and every generator is seeded.

    Args:
        doc: the script's docstring, for ``--help``.
        cls: its configuration.
        default_exp: the experiment without ``--exp``.
        usage: its kind.
        reads: sections and keys of the configuration that it reads, in place of the kind's.
        inputs: of a training: see `RunFolder`.
        file: the pattern of the names of weights, for a script that uses them; empty: it chooses them itself.
        unit: what their numbers count.
        paper: flags of the paper's own command, in place of the configuration's.

    Raises:
        UserError: command line, configuration or device are not usable, or input is missing: run folder, data set,
            image lists, weights, folders; everything that is missing is named.
        SystemExit: nothing is missing, and ``--check`` is given.
    """
    args, overrides = parse_arguments(doc, cls, default_exp, usage, reads, paper=paper)
    run = RunFolder(args.name, inputs)
    needs = Needs()
    source = needs.ask(_config_source, args, run, default_exp, usage, cls.method)
    named = args.exp or (default_exp if usage.is_training else "")
    if source is None and named and not getattr(args, "resume", False):
        source = config_path(named, cls.method)
    if source is None:  # the run that is missing has the configuration
        needs.settle(args.check)
    config = load_config(cls, source, overrides, usage.kind)
    run.experiment = experiment_of(run.config) if source == run.config else Path(source).stem if source else ""
    usage.check(args, config)
    if usage.is_training:
        needs.ask_all(each_method(config, "check_start"), args.resume)
        needs.ask_all(each_method(config, "check_run"), run)
    else:
        needs.ask_all(each_method(config, "check_folder", usage.reads if reads is None else reads))
    averaged = needs.ask(_averaged, args, run, file, unit) if usage.weights and not needs.missing else None
    weights = needs.ask(_weights, args, run, file, unit) if usage.weights and not needs.missing else None
    lists = image_lists(config, usage.reads if reads is None else reads, [*usage.ignores, *usage.unread(args, config)])
    needs.ask_all(config.data.needs(lists))
    needs.settle(args.check)

    from common.run.device import Runtime
    from common.run.processes import start_processes

    processes = start_processes()
    return Setup(args, config, run, processes, Runtime(config.runtime, processes), weights, averaged or [])


def parse_arguments(
    doc: str, cls: type, default_exp: str, usage: Usage, reads: Sequence[str] | None = None,
    argv: Sequence[str] | None = None, paper: PaperFlags | None = None,
) -> tuple[argparse.Namespace, list[str]]:  # fmt: skip
    """Parses a script's command line: ``(args, configuration overrides)``; takes the arguments of `start`."""
    parser = script_parser(doc, cls, usage.reads if reads is None else reads, usage.ignores)
    parser.paper = parser.paper if paper is None else paper
    parser.add_argument("--name", required=True, help="name of the run, whose folder is experiment/NAME/")
    if usage.is_training:
        parser.add_argument(
            "--exp", default="", help=f"experiment: a YAML in configs/ or a path to one (default: {default_exp})"
        )
        parser.add_argument(
            "--resume", action="store_true",
            help="go on from the run's last checkpoint, with the run's own configuration",
        )  # fmt: skip
    else:
        parser.add_argument(
            "--exp", default="", help=f"experiment YAML; default: the run's own configuration, else {default_exp}"
        )
    if usage.weights:
        parser.add_argument(
            "--load_epo", type=number(int, at_least(0)),
            help="epoch, or iteration where files count iterations, whose weights are used; default: "
            f"{usage.weights}",
        )  # fmt: skip
        parser.add_argument(
            "--load_pretrained", type=Path, help="a checkpoint file from anywhere, used instead of the run's own"
        )
        parser.add_argument(
            "--key", default="", help="the state dict's name in that file, where it holds several (a.b: b within a)"
        )
    for name, settings in usage.flags:
        parser.add_argument(name, **settings)
    if usage.overwrite:
        parser.add_argument("--overwrite", action="store_true", help=usage.overwrite)
    args, texts = parse_config(parser, argv, bool(usage.words))
    if not usage.words:
        return args, texts
    words = [text for text in texts if "=" not in text and text not in parser.keys]  # a key lacks its value
    overrides = [text for text in texts if text not in words]
    return args, ([f"{usage.words}={json.dumps(words)}"] if words else []) + overrides


def _config_source(args: argparse.Namespace, run: RunFolder, default_exp: str, usage: Usage, method: str) -> Path:
    """The first YAML of a script's configuration.

    Args:
        method: the script's.

    Raises:
        UserError: the run folder is in use, or is needed and missing; or the YAML is missing.
    """
    if usage.is_training:
        run.refuse_if_used(args.resume, args.overwrite)
        if args.resume:
            run.require_resumable()
        return run.config if args.resume else config_path(args.exp or default_exp, method)
    if usage.weights and args.load_pretrained is None:
        run.existing()
    return run.config if run.config.is_file() and not args.exp else config_path(args.exp or default_exp, method)


def _weights(args: argparse.Namespace, run: RunFolder, file: str, unit: str) -> Path | None:
    """The file of weights that the command line names; None if the script chooses it.

    Raises:
        UserError: it is missing.
    """
    if args.load_pretrained:
        require_weights(args.load_pretrained)
        return args.load_pretrained
    if getattr(args, "average", None):
        return last_checkpoints(run.checkpoints, args.average, args.load_epo, file, unit)[-1]
    return epoch_checkpoint(run.checkpoints, args.load_epo, file, unit) if file else None


def _averaged(args: argparse.Namespace, run: RunFolder, file: str, unit: str) -> list[Path]:
    """The files whose weights ``--average`` joins; none without it.

    Raises:
        UserError: there are too few of them, or ``--load_pretrained`` names a file.
    """
    count = getattr(args, "average", None)
    if count is None:
        return []
    if args.load_pretrained:
        raise UserError("--average takes the run's own checkpoints, --load_pretrained a single file; give one of them")
    return last_checkpoints(run.checkpoints, count, args.load_epo, file, unit)


def start_run(
    run: RunFolder, config: Any, processes: "Processes", overwrite: bool = False, keep_config: bool = False
) -> None:
    """Makes the run folder and records the configuration in it.

    Called when all input has proved to be there: a run that cannot start leaves nothing behind, and a run that cannot
    be resumed stays unchanged.

    Args:
        overwrite: Whether to delete the contents of the folder.
        keep_config: Whether an existing configuration, the training's, stays.

    Raises:
        UserError: another process writes into the folder, or it holds what no run has written.
    """
    processes.barrier()  # every process has looked at the folder
    processes.on_main(run.lock)
    if processes.is_main:
        run.create(overwrite)
        sweep(run.path)
        if not (keep_config and run.config.is_file()):
            save_config(config, run.config, run.experiment)
    processes.barrier()
