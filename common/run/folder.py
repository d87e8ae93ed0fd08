"""The run folder ``experiment/<name>/``: names and places of all files that the scripts of a run write."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from common.run.errors import UserError, preview
from common.run.lock import LOCK_FILE, lock
from common.run.similar import did_you_mean

EXPERIMENT_DIR = Path("experiment")

# Names that command lines and other modules spell as well
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
LAST_FILE = "last.pth"  # in the folder of checkpoints: for resuming; the best weights; the weights of an epoch
PREVIOUS_FILE = "previous.pth"  # the checkpoint before the last, until the run is finished
BEST_FILE = "best.pth"
EPOCH_FILE = "{:03d}net_trm.pth"
SEEDS_DIR = "dict"
CRF_DIR = "crf"
LABELS_DIR = "ir_label"
SEED_SCORES = "eval_cam"  # stems of an evaluation's files
MASK_SCORES = "eval_png"
REFINED_MASK_SCORES = "eval_png_crf"
BOX_SCORES = "eval_wsol"
CARD = "_card.json"  # ends of the files of a card, and of all files of an evaluation, after the stem
CARD_FILES = (CARD, "_per_image.csv", "_confusion.png", "_classes.png")
SCORE_FILES = (".json", ".csv", ".png", "_thresholds.json", *CARD_FILES)


def is_run_name(name: str) -> bool:
    """Whether a run can have that name."""
    return re.fullmatch(r"[\w][\w.+-]*", name) is not None


class RunFolder:
    """Places of one run's files; only files that its scripts write exist.

    Training: ``config`` (``config.yaml``), ``log.txt``, ``metrics`` (``metrics.jsonl``), ``tensorboard/``,
    ``checkpoints`` (``ckpt/``).
    Seeds: ``seeds`` (``dict/``), ``crf`` (``crf/<exponent>/``), ``pictures`` (``vis/``).
    Refinement of seeds: ``segments`` (``segments/``), ``labels`` (``ir_label/``), ``masks`` (``masks/``).
    Fusion of seeds: ``agreement`` (``agreement/``).
    Segmentation: ``segs`` (``segs/<list>/``), ``refined_segs`` (``segs_crf/<list>/``).
    Scores: ``scores`` (``eval_*.json``, with .csv and .png beside it).
    A folder of files for images has its stamp in it, see `common.data.stamp`.
    """

    def __init__(self, name: str, inputs: Sequence[str] = ()) -> None:
        """Names a run; creates nothing.

        Args:
            inputs: names of folders and files in it that other scripts write before the training, which neither
                refuses nor deletes them.

        Raises:
            UserError: the name is not a plain folder name.
        """
        if not is_run_name(name):
            raise UserError(f"--name {name!r}: a run's name is one folder name of letters, digits and . _ + -")
        self.name = name
        self.path = EXPERIMENT_DIR / name
        self.inputs = frozenset(inputs)
        self.experiment = ""  # name of the YAML that the run begins with, recorded with its configuration

    @property
    def config(self) -> Path:
        """The resolved configuration of the run."""
        return self.path / CONFIG_FILE

    @property
    def metrics(self) -> Path:
        """The numbers of the training, one JSON object a line."""
        return self.path / METRICS_FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "ckpt"

    @property
    def last(self) -> Path:
        """The last checkpoint, from which a training goes on."""
        return self.checkpoints / LAST_FILE

    @property
    def seeds(self) -> Path:
        """Folder of the seeds, unless ``--dict_dir`` names another."""
        return self.path / SEEDS_DIR

    @property
    def crf(self) -> Path:
        """Folder with a folder of dense CRF results for each background exponent."""
        return self.path / CRF_DIR

    @property
    def pictures(self) -> Path:
        """Folder of pictures."""
        return self.path / "vis"

    @property
    def importance(self) -> Path:
        """Folder of PCSS's importance masks over the epochs, as pictures."""
        return self.path / "importance"

    @property
    def previews(self) -> Path:
        """Folder of images that a diffusion model makes from noise, over the steps."""
        return self.path / "previews"

    @property
    def labels(self) -> Path:
        """Folder of label maps that a refinement's network learns from."""
        return self.path / LABELS_DIR

    @property
    def masks(self) -> Path:
        """Folder of pseudo masks."""
        return self.path / "masks"

    @property
    def segments(self) -> Path:
        """Folder of segments, regions without classes."""
        return self.path / "segments"

    @property
    def agreement(self) -> Path:
        """Folder of the agreement of fused seeds."""
        return self.path / "agreement"

    def segs(self, list_name: str) -> Path:
        """Folder of a segmentation network's masks of a list."""
        return self.path / "segs" / Path(list_name).stem

    def refined_segs(self, list_name: str) -> Path:
        """As `segs`, after the dense CRF."""
        return self.path / "segs_crf" / Path(list_name).stem

    def scores(self, stem: str) -> Path:
        """The result of an evaluation by its stem, such as `MASK_SCORES`."""
        return self.path / f"{stem}.json"

    def refuse_if_used(self, resume: bool = False, overwrite: bool = False) -> None:
        """Makes sure that a training may write here.

        Raises:
            UserError: it holds files already and neither ``resume`` nor ``overwrite`` is given, or both are.
        """
        if resume and overwrite:
            raise UserError("--resume continues a run and --overwrite starts it anew; give one of them")
        if self._outputs() and not (resume or overwrite):
            raise UserError(
                f"the run folder {self.path} is not empty. Choose another --name, continue it with --resume, or start "
                "anew with --overwrite (deletes what is in it)"
            )

    def require_resumable(self) -> None:
        """Makes sure that a training can go on here.

        Raises:
            UserError: there is no such run, or it has no configuration or no last checkpoint.
        """
        for file in (self.existing().config, self.last):
            if not file.is_file():
                raise UserError(
                    f"nothing to resume: no {file}. Start the run without --resume (with --overwrite if its folder is "
                    "not empty)"
                )

    def lock(self) -> None:
        """Makes the folder, if it is missing, and locks it for this process.

        Raises:
            UserError: another process holds it; it is named.
        """
        _make(self.path)
        lock(self.path)

    def below(self, name: str, flag: str) -> Path:
        """A place within the folder, by a name from the command line.

        Raises:
            UserError: the name leads out of the folder, or names the folder itself.
        """
        path = Path(os.path.normpath(name)) if name else Path()
        if path.is_absolute() or not path.parts or path.parts[0] in ("..", "~"):
            raise UserError(f"{flag} {name!r} leads out of {self.path}; a name within it is needed")
        return self.path / path

    def create(self, overwrite: bool = False) -> None:
        """Makes the folder; ``overwrite`` deletes all but the inputs in it.

        Raises:
            UserError: ``overwrite``, and the folder holds files that no run has written.
        """
        outputs = self._outputs()
        own = {CONFIG_FILE, METRICS_FILE, "log.txt", self.checkpoints.name}
        is_of_run = any(path.name in own or path.name.startswith("eval_") for path in outputs)
        is_of_run |= any((path / "stamp.json").is_file() for path in outputs)
        if overwrite and outputs and not is_of_run:
            names = preview([path.name for path in outputs], 3)
            raise UserError(
                f"{self.path} is no run's folder ({names}): nothing in it is deleted. Choose another --name"
            )
        for path in outputs if overwrite else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        _make(self.path)

    def _outputs(self) -> list[Path]:
        there = self.path.iterdir() if self.path.exists() else ()
        return [path for path in there if path.name not in self.inputs and path.name != LOCK_FILE]

    def existing(self) -> "RunFolder":
        """The folder of an existing run.

        Raises:
            UserError: there is none of that name; the message lists the runs that exist.
        """
        if not self.path.is_dir():
            runs = sorted(path.name for path in EXPERIMENT_DIR.glob("*") if path.is_dir())
            known = did_you_mean(self.name, runs) + (f" There are: {', '.join(runs)}." if runs else "")
            raise UserError(
                f"no run folder {self.path} (from {Path.cwd()}).{known} A training script makes it (--name "
                f"{self.name}); for weights from elsewhere, inference takes --load_pretrained FILE"
            )
        return self

    def require_folder(self, name: str) -> str:
        """Makes sure that a folder in this one is there.

        Raises:
            UserError: it is not; the message lists the folders that exist.
        """
        folder = self.path / name
        if not folder.is_dir():
            there = sorted(path.name for path in self.path.glob("*") if path.is_dir())
            hint = did_you_mean(name, there)
            raise UserError(f"no folder {folder}.{hint} {self.path} has {', '.join(there) or 'no folders'}")
        return str(folder)


def _make(folder: Path) -> None:
    """Makes a folder, or the target of a link that leads nowhere yet."""
    try:
        (folder.resolve() if folder.is_symlink() else folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror or error}") from error


def epoch_checkpoint(folder: Path, epoch: int | None, file: str = EPOCH_FILE, unit: str = "epoch") -> Path:
    """The file of an epoch (``--load_epo``), or of the best or last written one for None.

    Args:
        file: the pattern of the file names, with the place of the number in braces.
        unit: unit of the number, for messages.

    Raises:
        UserError: it is missing; the message tells which exist.
    """
    there = _epochs(folder, file)
    if epoch is not None:
        path = folder / file.format(epoch)
        if path.is_file():
            return path
        raise UserError(f"no checkpoint {path}. {_known(there, unit)}")
    best = folder / BEST_FILE
    if best.is_file():
        return best
    if there:
        return folder / file.format(there[-1])
    raise UserError(f"no checkpoint in {folder}: train first, or name a file with --load_pretrained")


def last_checkpoints(
    folder: Path, count: int, epoch: int | None, file: str = EPOCH_FILE, unit: str = "epoch"
) -> list[Path]:
    """The files of the last ``count`` epochs that are there, up to one if it is given; in ascending order.

    Args:
        file: as `epoch_checkpoint`, like ``unit``.

    Raises:
        UserError: there are fewer.
    """
    there = _epochs(folder, file)
    usable = [number for number in there if epoch is None or number <= epoch]
    if len(usable) < count:
        until = f" up to {unit} {epoch}" if epoch is not None else ""
        raise UserError(
            f"--average last{count}: {folder} has {len(usable)} {unit} files{until}. {_known(there, unit)} A training "
            "keeps more of them with a smaller train.save_epochs or train.keep_steps"
        )
    return [folder / file.format(number) for number in usable[-count:]]


def _epochs(folder: Path, file: str) -> list[int]:
    """The numbers of the checkpoints whose names fit a pattern, ascending."""
    before, after = (re.escape(part) for part in re.split(r"\{.*\}", file))
    found = (re.fullmatch(rf"{before}(\d+){after}", path.name) for path in folder.glob("*.pth"))
    return sorted(int(match[1]) for match in found if match)


def _known(there: Sequence[int], unit: str) -> str:
    return f"There are {unit}s {there[0]} to {there[-1]}." if there else f"There is no {unit} file at all."
