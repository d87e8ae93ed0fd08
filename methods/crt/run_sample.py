"""CRT from images to scored pseudo masks in one command: classifier, seeds, IRN's labels, IRN, masks.

python methods/crt/run_sample.py --name exp --voc12_root data/VOC2012        VOC 2012, as published
python methods/crt/run_sample.py --name exp --eval_cam_pass False            without the score of the seeds
python methods/crt/run_sample.py --name exp --nproc 4                        four processes a script

A step whose output is complete is skipped, an interrupted one goes on: the same command does both. Classifier and seeds
are in experiment/NAME_cam, IRN and the masks in experiment/NAME_irn; the table and what was done go to
experiment/NAME/run_sample.json. Then DeepLab: scripts/run_pipeline.py --name NAME --exp pipeline_crt.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.checkpoint import EPOCH_FILE
from common.config import config_path, load_config, parse_config, save_config, script_parser
from common.data.dataset import ImageSet
from common.errors import UserError, preview, run_script
from common.evaluate import MaskFiles
from common.files import write_json
from common.pipeline import Score, is_scored, table, with_gains
from common.run import RunFolder
from common.seeds import FORMATS
from common.stages import Stage, carry_out, has_files, read_state
from methods.crt.config import CRTConfig

STEPS = {  # the reference's switches
    "train_cam": "training of the classifier", "make_cam": "seeds", "eval_cam": "score of the seeds",
    "cam_to_ir_label": "IRN's labels", "train_irn": "training of IRN", "make_sem_seg": "masks",
    "eval_sem_seg": "score of the masks",
}  # fmt: skip


def main() -> int:
    """Command line → steps → each run or skipped → table. Returns the exit code."""
    args, overrides = arguments()
    config, run = load_config(CRTConfig, config_path(args.exp), overrides), RunFolder(args.name)
    config.check()
    steps = sample_steps(args, overrides, config)
    stages = [step for name, step in steps.items() if getattr(args, f"{name}_pass")]
    run.create()
    save_config(config, run.path / "run_sample.yaml")
    state_file = run.path / "run_sample.json"
    code = carry_out(stages, args.nproc, state_file)
    if code == 0:
        rows = with_gains(sample_scores(args.name, config))
        write_json(state_file, {**read_state(state_file), "unit": "percent", "table": rows})
        print(f"\n{table(rows)}\nwritten: {state_file}")
    return code


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line: ``(args, configuration overrides)``."""
    parser = script_parser(__doc__, CRTConfig, unused=["infer.num_workers"])  # its flag is that of the training, too
    parser.add_argument("--name", required=True, help="experiment/NAME/, and NAME_cam and NAME_irn of its steps")
    parser.add_argument("--exp", default="crt_2022", help="a YAML in configs/ or a path to one (default: %(default)s)")
    parser.add_argument("--voc12_root", help="folder of VOC 2012, as data.root")
    parser.add_argument("--nproc", type=int, default=1, help="processes of every script, by torchrun (default: 1)")
    for name, title in STEPS.items():
        parser.add_argument(
            f"--{name}_pass", type=truth, default=True, metavar="BOOL", help=f"whether this is a step: {title}"
        )
    args, overrides = parse_config(parser)
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc}: at least one process")
    if args.voc12_root:
        overrides = [f"data.root={args.voc12_root}", *overrides]
    return args, overrides


def truth(text: str) -> bool:
    """A truth value in words. (In the reference any text, "True" too, turns a step off.)"""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def sample_steps(args: argparse.Namespace, overrides: list[str], config: CRTConfig) -> dict[str, Stage]:
    """All steps under their names in `STEPS`; without images to score, nothing is scored.

    Raises:
        UserError: a list or an image is missing, or images are to be scored that get no seeds.
    """
    cam, irn, infer = RunFolder(f"{args.name}_cam"), RunFolder(f"{args.name}_irn"), config.infer
    ids = ImageSet(config.data, infer.image_list).ids
    outside = set(MaskFiles(config.data, infer.eval_list).ids) - set(ids) if infer.eval_list else set()
    if outside:
        raise UserError(
            f"infer.eval_list={infer.eval_list} has {len(outside)} images that are not in infer.image_list="
            f"{infer.image_list} and get no seeds: {preview(sorted(outside), 3)}"
        )
    seeds, strided, labels, masks = cam.path / "dict", cam.path / "cam", irn.path / "ir_label", irn.path / "masks"
    of_cam = ["--name", cam.name, "--exp", args.exp, *overrides]
    data = [f"data.{key}={value}" for key, value in vars(config.data).items()]
    of_irn = [  # IRN learns from the images that have seeds
        "--name", irn.name, "--exp", config.irn.exp, *data,
        f"train.image_list={infer.image_list}", f"train.displacement_list={infer.eval_list or infer.image_list}",
        f"infer.image_list={infer.image_list}", *config.irn.overrides,
    ]  # fmt: skip

    def has_weights(run: RunFolder, pattern: str) -> Callable[[], bool]:
        return lambda: any(run.checkpoints.glob(pattern))

    def is_whole(*folders: Path, suffixes: Sequence[str] = FORMATS) -> Callable[[], bool]:
        return lambda: all(has_files(folder, ids, suffixes) for folder in folders)

    def step(name: str, script: str, run: RunFolder, given: list[str], source: Path, **more: Any) -> Stage:
        return Stage(STEPS[name], script, tuple(given), run.path, source=source, **more)

    def score(name: str, task: str, run: RunFolder, folder: Path) -> Stage:
        given = ["--name", run.name, "--task", task, "--dict_dir", folder.name, "--list", infer.eval_list]
        is_there = functools.partial(is_scored, run.path / f"eval_{task}.json", infer.eval_list)
        return step(name, "evaluation.py", run, given, folder, is_complete=is_there, is_score=True)

    steps = {
        "train_cam": step(
            "train_cam", "methods/crt/train_cam.py", cam, of_cam, Path(config.data.root), weights=cam.checkpoints,
            is_complete=has_weights(cam, EPOCH_FILE.format(config.train.epochs - 1)),
        ),
        "make_cam": step(
            "make_cam", "methods/crt/make_cam.py", cam, [*of_cam, "infer.eval_list=", "--dict"], cam.checkpoints,
            is_complete=is_whole(seeds, strided),
        ),
        "eval_cam": score("eval_cam", "cam", cam, seeds),
        "cam_to_ir_label": step(
            "cam_to_ir_label", "methods/irn/make_ir_label.py", irn, [*of_irn, "--seeds", str(seeds)], seeds,
            is_complete=is_whole(labels, suffixes=["png"]),
        ),
        "train_irn": step(
            "train_irn", "methods/irn/train_irn.py", irn, of_irn, labels, weights=irn.checkpoints,
            is_complete=has_weights(irn, "*res50_irn.pth"),
        ),
        "make_sem_seg": step(
            "make_sem_seg", "methods/irn/infer_irn.py", irn, [*of_irn, "infer.eval_list=", "--seeds", str(strided)],
            strided, is_complete=is_whole(masks, suffixes=["png"]),
        ),
        "eval_sem_seg": score("eval_sem_seg", "png", irn, masks),
    }  # fmt: skip
    return steps if infer.eval_list else {name: stage for name, stage in steps.items() if not stage.is_score}


def sample_scores(name: str, config: CRTConfig) -> list[Score]:
    """The rows of the table: the seeds at both thresholds, and the masks."""
    seeds, masks = (RunFolder(f"{name}_{part}").path for part in ("cam", "irn"))
    of_seeds = [
        Score(f"seeds, {point} threshold", seeds / "eval_cam.json", config.infer.eval_list, point)
        for point in ("best", "fixed")
    ]
    return [*of_seeds, Score("masks (irn)", masks / "eval_png.json", config.infer.eval_list)]


if __name__ == "__main__":
    run_script(main)
