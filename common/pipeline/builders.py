"""Builds the stages of pipelines: the scripts of every kind of stage, and the files that make it complete.

This module alone strings methods together. They are named as data, and imported only when a pipeline asks for their
configuration, as `common` depends on no method.
"""

import argparse
import functools
import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.dataset import ImageSet
from common.pipeline.stages import Stage, carry_out, has_files, read_state
from common.pipeline.table import Score, is_scored, table, with_gains
from common.run.command import ScriptParser, parse_config
from common.run.config import config_path, each_method, leaves, load_config
from common.run.errors import UserError, preview
from common.run.files import has_content, write_json
from common.run.fingerprint import digest, stat_parts
from common.run.folder import RunFolder
from common.run.method import method_of


@dataclass(frozen=True)
class Kind:
    """A kind of stage: a training, and the scripts before and after it.

    Attributes:
        config: its configuration, as module:class.
        masks: the script that makes masks, with the trained weights or of the seeds alone.
        prepare: the script that makes the training's input; empty: other stages do.
        train: the training; empty: there is none.
        weights: name of the file that a training writes at its end, as module:constant; a number in it is any.
    """

    config: str
    masks: str
    prepare: str = ""
    train: str = ""
    weights: str = ""

    def config_class(self) -> type[Any]:
        """The class of its configuration."""
        return named(self.config)

    def weights_in(self, run: RunFolder) -> tuple[Path, str]:
        """Folder and pattern of the weights that the training ends with."""
        return run.checkpoints, re.sub(r"\{.*?\}", "*", named(self.weights))

    def training(
        self, title: str, run: RunFolder, arguments: Sequence[str], source: Path,
        settings: dict[str, Any] | None = None,
    ) -> Stage:  # fmt: skip
        """Its training as a stage."""
        return training(title, self.train, run, arguments, source, self.weights_in(run)[1], settings)


KINDS = {
    "irn": Kind(
        config="methods.irn.config:IRNConfig", prepare="methods/irn/make_ir_label.py",
        train="methods/irn/train_irn.py", weights="methods.irn.config:WEIGHTS_FILE",
        masks="methods/irn/infer_irn.py",
    ),
    "psa": Kind(
        config="methods.psa.config:PSAConfig", prepare="methods/psa/make_crf.py",
        train="methods/psa/train_aff.py", weights="common.run.folder:EPOCH_FILE", masks="methods/psa/infer_aff.py",
    ),
    "crf": Kind(config="common.masks.options:CRFMasksConfig", masks="scripts/crf_masks.py"),
    "segments": Kind(
        config="methods.segments.config:SegmentsConfig", prepare="scripts/make_segments.py",
        masks="methods/segments/vote.py",
    ),
    "fusion": Kind(config="methods.fusion.config:FusionConfig", masks="scripts/fuse_seeds.py"),
    "deeplab": Kind(
        config="methods.deeplab.config:DeepLabConfig", train="methods/deeplab/train_deeplab.py",
        weights="methods.deeplab.config:FINAL_FILE", masks="methods/deeplab/test_deeplab.py",
    ),
    "vitseg": Kind(
        config="methods.vitseg.config:VitSegConfig", train="methods/vitseg/train_vitseg.py",
        weights="methods.vitseg.config:FINAL_FILE", masks="methods/vitseg/test_vitseg.py",
    ),
}  # fmt: skip
WITHOUT_EFFECT = ("num_workers", "device", "vis_limit", "print_freq")
MASK_COMMANDS = f"python {KINDS['irn'].masks} (or {KINDS['psa'].masks})"  # for messages


@dataclass(frozen=True)
class Predicting:
    """A network that predicts images.

    Attributes:
        config: its configuration, as module:class.
        face: its face, as module:constant.
        exp: experiment of weights from elsewhere, without ``--exp``.
        file: pattern of the names of its weights, as module:constant.
        unit: unit of the numbers in them.
        section: section of its configuration with the settings of inference.
    """

    config: str
    face: str
    exp: str
    file: str = "common.run.folder:EPOCH_FILE"
    unit: str = "epoch"
    section: str = "infer"


# By the entry "method" of their YAMLs.
PREDICTING = {
    "CTI": Predicting("methods.cti.config:CTIConfig", "methods.cti.face:FACE", "cti_cvpr24"),
    "PCSS": Predicting("methods.pcss.config:PCSSConfig", "methods.pcss.face:FACE", "pcss_eccv24"),
    "DiG": Predicting("methods.dig.config:DiGConfig", "methods.dig.face:FACE", "dig_eccv24"),
    "CRT": Predicting("methods.crt.config:CRTConfig", "methods.crt.face:FACE", "crt_2022"),
    "ToCo": Predicting(
        "methods.toco.config:ToCoConfig", "methods.toco.face:FACE", "toco_cvpr23", "methods.toco.config:WEIGHTS_FILE",
        "iteration", "infer.segment",
    ),
    "DeepLab": Predicting(
        "methods.deeplab.config:DeepLabConfig", "methods.deeplab.face:FACE", "deeplab_voc",
        "methods.deeplab.config:WEIGHTS_FILE", "iteration",
    ),
    "ViT segmenter": Predicting(
        "methods.vitseg.config:VitSegConfig", "methods.vitseg.face:FACE", "vitseg_voc",
        "methods.vitseg.config:WEIGHTS_FILE", "iteration",
    ),
}  # fmt: skip


def predicting(path: Path) -> Predicting:
    """The kind of network of a YAML.

    Raises:
        UserError: it is of none that predicts.
    """
    method = method_of(path)
    if method not in PREDICTING:
        found = f"is of {method}" if method else "has no entry 'method'"
        raise UserError(
            f"{path} {found}; networks of {', '.join(PREDICTING)} predict. Name an experiment of one of them with --exp"
        )
    return PREDICTING[method]


# Trainings whose cost can be planned, by the entry "method" of their YAMLs: configuration, and the step.
PLANNED = {
    method: (f"methods.{package}.config:{name}", f"methods.{package}.plan:step_work")
    for method, package, name in (
        ("CTI", "cti", "CTIConfig"), ("PCSS", "pcss", "PCSSConfig"), ("DiG", "dig", "DiGConfig"),
        ("ToCo", "toco", "ToCoConfig"), ("CRT", "crt", "CRTConfig"), ("DeepLab", "deeplab", "DeepLabConfig"),
    )
}  # fmt: skip


def mask_advice(list_name: str) -> str:
    """How the masks of a list are made, for messages."""
    return (
        f"Pseudo masks of the whole list are made by: {MASK_COMMANDS} --name NAME --seeds SEEDS --infer_list "
        f"{list_name}; then --masks experiment/NAME/masks. Or train on another list: --train_list LIST"
    )


def start_checks(config: Any, kind: str, run: RunFolder, *overrides: str) -> list[Callable[[], Any]]:
    """Checks of the files that a kind's training starts from; none if there is no training, or it is done.

    Args:
        config: a pipeline's, whose section of that name has the kind's experiment.
        run: the training's folder.
        overrides: further settings of it.
    """
    stage = getattr(config, kind)
    cls = KINDS[kind].config_class()
    try:
        own = load_config(cls, config_path(stage.exp, cls.method), [*stage.overrides, *overrides])
    except UserError as error:
        return [functools.partial(_raise, error)]
    is_done = not KINDS[kind].train or KINDS[kind].training("", run, (), run.path).is_complete()
    return [] if is_done else [functools.partial(check, False) for check in each_method(own, "check_start")]


def _raise(error: Exception) -> None:
    raise error


def named(path: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def files(
    title: str, script: str, run: RunFolder, arguments: Sequence[str], source: Path, folders: Sequence[Path],
    ids: Sequence[str], suffixes: Sequence[str] = ("png",), is_reported: Callable[[], bool] = lambda: True,
    settings: dict[str, Any] | None = None, inputs: tuple[tuple[Path, str], ...] = (), more: Sequence[Path] = (),
    is_shared: bool = False,
) -> Stage:  # fmt: skip
    """A script that writes a file for every image.

    Args:
        run: is named by ``--name``, before the other arguments.
        source: see `Stage`.
        folders: where every image of ``ids`` has a file of one of the suffixes when it is complete.
        is_reported: whether its other files are there, such as scores.
        settings: see `Stage`.
        inputs: see `Stage`.
        more: see `Stage`.
        is_shared: whether other stages write into the same folders, whose files then say nothing of this one.
    """

    def is_complete() -> bool:
        return all(has_files(folder, ids, suffixes) for folder in folders) and is_reported()

    made = tuple((folder, f"*.{suffix}") for folder in folders for suffix in suffixes[:1])
    return Stage(
        title, script, ("--name", run.name, *arguments), run.path, is_complete, source, settings=settings or {},
        outputs=() if is_shared else made, inputs=inputs, more=tuple(more),
    )  # fmt: skip


def training(
    title: str, script: str, run: RunFolder, arguments: Sequence[str], source: Path, weights: str,
    settings: dict[str, Any] | None = None,
) -> Stage:  # fmt: skip
    """A training, complete when there is a checkpoint whose name fits the pattern ``weights``; see `files`."""
    folder = run.checkpoints
    command = "--name", run.name, *arguments

    def is_complete() -> bool:
        return any(map(has_content, folder.glob(weights)))

    return Stage(
        title, script, command, run.path, is_complete, source, weights=folder, settings=settings or {},
        outputs=((folder, weights),),
    )  # fmt: skip


def score(
    title: str, run: RunFolder, folder: Path, task: str, list_name: str, stem: str, arguments: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
) -> Stage:  # fmt: skip
    """A call of evaluation.py for a folder of predictions; ``stem`` names its files in the run folder.

    Args:
        arguments: further ones, after --name, --task, --dict_dir and --list.
    """
    place = os.path.relpath(folder, run.path)
    command = "--name", run.name, "--task", task, "--dict_dir", place, "--list", list_name, *arguments
    is_there = functools.partial(is_scored, run.scores(stem), list_name, folder)
    return Stage(title, "evaluation.py", command, run.path, is_there, folder, is_score=True, settings=settings or {})


def settings_of(script: str, config: Any, images: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a stage.

    Args:
        script: its path; of a method's script that names the sections it reads, these alone count.
        config: its configuration.
        images: of `images_digest`.
    """
    is_of_method = script.startswith("methods/")
    module = importlib.import_module(script.removesuffix(".py").replace("/", ".")) if is_of_method else None
    reads = getattr(module, "READS", ())
    skipped = ("runtime", *(("infer", "walk", "eval", "seeds") if "/train_" in script else ()))
    values = {leaf.key: leaf.default for leaf in leaves(config) if _counts(leaf.key, reads, skipped)}
    return {"config": values, **images}


def _counts(key: str, reads: Sequence[str], skipped: Sequence[str]) -> bool:
    """Whether a key of a configuration decides about the content of files."""

    def is_in(names: Sequence[str]) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in names)

    return (not reads or is_in(reads)) and not is_in(skipped) and key.rpartition(".")[2] not in WITHOUT_EFFECT


def images_digest(images: ImageSet) -> dict[str, str]:
    """Digests of a list and of its image files: names, sizes and times of change."""
    return {"list": digest(*images.ids), "images": digest(*map(stat_parts, images.images))}


def require_within(scored: Sequence[str], made: Sequence[str], setting: str, within: str, what: str) -> None:
    """Makes sure that a scored list lies within the list that predictions are made for.

    Args:
        scored: ids of the scored list.
        made: ids of the list that predictions are made for.
        setting: key=value of the scored list.
        within: key=value of the other one.
        what: plural noun for the predictions.

    Raises:
        UserError: images are missing in the other list; they are named.
    """
    outside = set(scored) - set(made)
    if outside:
        raise UserError(
            f"{setting} has {len(outside)} images that are not in {within} and get no {what}: "
            f"{preview(sorted(outside), 3)}"
        )


def parse_pipeline(parser: ScriptParser) -> tuple[argparse.Namespace, list[str]]:
    """Adds ``--nproc`` and parses a pipeline's command line: ``(args, configuration overrides)``.

    Raises:
        UserError: ``--nproc`` is below 1.
    """
    parser.add_argument("--nproc", type=int, default=1, help="processes of every script, by torchrun (default: 1)")
    args, overrides = parse_config(parser)
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc}: at least one process")
    return args, overrides


def run_stages(stages: Sequence[Stage], scores: Sequence[Score], nproc: int, state_file: Path) -> int:
    """Carries the stages out, then writes and prints the table; the exit code, see `carry_out`."""
    code = carry_out(stages, nproc, state_file)
    if code == 0:
        rows = with_gains(scores)
        write_json(state_file, {**read_state(state_file), "unit": "percent", "table": rows})
        print(f"\n{table(rows)}\nwritten: {state_file}")
    return code
