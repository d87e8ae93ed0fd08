"""CRT from images to scored pseudo masks in one command: classifier, seeds, IRN's labels, IRN, masks.

python methods/crt/run_sample.py --name exp --voc12_root data/VOC2012        VOC 2012, as published
python methods/crt/run_sample.py --name exp --eval_cam_pass False            without the score of the seeds
python methods/crt/run_sample.py --name exp --nproc 4                        four processes for each script

The same command goes on after an interruption; steps with complete output are skipped. Classifier and seeds are in
experiment/NAME_cam, IRN and the masks in experiment/NAME_irn, the table and a record of the steps in
experiment/NAME/run_sample.json. Then DeepLab: scripts/run_pipeline.py --name NAME --exp pipeline_crt.
"""

import argparse

from common.data.dataset import ImageSet
from common.data.seeds import FORMATS
from common.pipeline.builders import (
    KINDS,
    files,
    images_digest,
    parse_pipeline,
    require_within,
    run_stages,
    score,
    settings_of,
    start_checks,
    training,
)
from common.pipeline.stages import Stage
from common.pipeline.table import Score
from common.run.command import script_parser
from common.run.config import config_path, each_method, leaves, load_config, save_config
from common.run.errors import run_script
from common.run.files import sweep
from common.run.folder import EPOCH_FILE, MASK_SCORES, SEED_SCORES, RunFolder
from common.run.needs import Needs, image_lists
from common.score.files import MaskFiles
from methods.crt.config import CRTConfig, strided_path

OF_IRN = "irn:"  # names of arguments that set a key of IRN
STEPS = {  # the reference's switches
    "train_cam": "training of the classifier", "make_cam": "seeds", "eval_cam": "score of the seeds",
    "cam_to_ir_label": "IRN's labels", "train_irn": "training of IRN", "make_sem_seg": "masks",
    "eval_sem_seg": "score of the masks",
}  # fmt: skip


def main() -> int:
    """Command line → steps → each run or skipped → table. Returns the exit code."""
    args, overrides = arguments()
    config = load_config(CRTConfig, config_path(args.exp, CRTConfig.method), overrides)
    config.irn.overrides = [*config.irn.overrides, *args.irn]
    run = RunFolder(args.name)
    require_input(args, config)
    steps = sample_steps(args, overrides, config)
    stages = [step for name, step in steps.items() if getattr(args, f"{name}_pass")]
    run.lock()
    sweep(run.path)
    save_config(config, run.path / "run_sample.yaml")
    return run_stages(stages, sample_scores(args.name, config), args.nproc, run.path / "run_sample.json")


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The command line: ``(args, configuration overrides)``."""
    parser = script_parser(__doc__, CRTConfig, ignores=["infer.num_workers"])  # its flag is that of the training, too
    parser.add_argument(
        "--name", default="crt", help="experiment/NAME/, and NAME_cam and NAME_irn of its steps (default: crt)"
    )
    parser.add_argument("--exp", default="crt_2022", help="a YAML in configs/ or a path to one (default: %(default)s)")
    for name, title in STEPS.items():
        parser.add_argument(
            f"--{name}_pass", type=truth, default=True, metavar="BOOL", help=f"whether this is a step: {title}"
        )
    for leaf in leaves(KINDS["irn"].config_class()()):  # IRN's flags, as in the paper's command
        flags = [flag for flag in leaf.flags if not parser.has(flag)]
        if flags:
            parser.add_argument(*flags, dest=f"{OF_IRN}{leaf.key}", metavar="X", help=f"= {leaf.key} of IRN")
    args, overrides = parse_pipeline(parser)
    given = {name: value for name, value in vars(args).items() if name.startswith(OF_IRN) and value is not None}
    args.irn = [f"{name.removeprefix(OF_IRN)}={value}" for name, value in given.items()]
    return args, overrides


def require_input(args: argparse.Namespace, config: CRTConfig) -> None:
    """Makes sure that data set, lists, and the first weights of both trainings are there.

    Raises:
        UserError: some are missing; all are named.
        SystemExit: none is, and ``--check`` is given.
    """
    needs = Needs()
    needs.ask_all(config.data.needs(image_lists(config, ("train", "infer"), ())))
    cam = RunFolder(f"{args.name}_cam")
    if args.train_cam_pass and not (cam.checkpoints / EPOCH_FILE.format(config.train.epochs - 1)).is_file():
        needs.ask_all(each_method(config, "check_start"), False)
    if args.train_irn_pass:
        needs.ask_all(start_checks(config, "irn", RunFolder(f"{args.name}_irn")))
    needs.settle(args.check)


def truth(text: str) -> bool:
    """Parses a truth value. (In the reference every text turns a step off, even "True".)"""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return values[text.lower()]


def sample_steps(args: argparse.Namespace, overrides: list[str], config: CRTConfig) -> dict[str, Stage]:
    """All steps under their names in `STEPS`; no scores if ``infer.eval_list`` is empty.

    Raises:
        UserError: a list or an image is missing, or images to score are not among the images of the seeds.
    """
    cam = RunFolder(f"{args.name}_cam")
    irn = RunFolder(f"{args.name}_irn")
    infer = config.infer
    images = ImageSet(config.data, infer.image_list)
    ids = images.ids
    scored = MaskFiles(config.data, infer.eval_list).ids if infer.eval_list else []
    image_list = f"infer.image_list={infer.image_list}"
    require_within(scored, ids, f"infer.eval_list={infer.eval_list}", image_list, "seeds")
    kind = KINDS["irn"]
    digests = images_digest(images)
    of_training = images_digest(ImageSet(config.data, config.train.image_list, require_images=False))
    trained = settings_of("methods/crt/train_cam.py", config, of_training)
    seeded = {"infer": {**infer.settings(), "model": vars(config.model.deit)}, **digests}
    strided = strided_path(cam.seeds)
    last = EPOCH_FILE.format(config.train.epochs - 1)
    of_cam = ["--exp", args.exp, *overrides]
    of_seeds = [*of_cam, "infer.eval_list=", "--dict"]
    of_irn = [  # IRN learns from the images that have seeds
        "--exp", config.irn.exp, *(f"data.{key}={value}" for key, value in vars(config.data).items()),
        f"train.image_list={infer.image_list}", f"train.displacement_list={infer.eval_list or infer.image_list}",
        image_list, *config.irn.overrides,
    ]  # fmt: skip
    own = load_config(kind.config_class(), config_path(config.irn.exp), of_irn[2:])
    of_labels = [*of_irn, "--seeds", str(cam.seeds)]
    of_masks = [*of_irn, "infer.eval_list=", "--seeds", str(strided)]
    steps = [
        training(STEPS["train_cam"], "methods/crt/train_cam.py", cam, of_cam, cam.seeds / "none", last, trained),
        files(
            STEPS["make_cam"], "methods/crt/make_cam.py", cam, of_seeds, cam.checkpoints, [cam.seeds, strided], ids,
            FORMATS, settings=seeded, inputs=((cam.checkpoints, last),),
        ),
        score(STEPS["eval_cam"], cam, cam.seeds, "cam", infer.eval_list, SEED_SCORES),
        files(
            STEPS["cam_to_ir_label"], kind.prepare, irn, of_labels, cam.seeds, [irn.labels], ids,
            settings=settings_of(kind.prepare, own, digests),
        ),
        kind.training(STEPS["train_irn"], irn, of_irn, irn.labels, settings_of(kind.train, own, digests)),
        files(
            STEPS["make_sem_seg"], kind.masks, irn, of_masks, strided, [irn.masks], ids,
            settings=settings_of(kind.masks, own, digests), inputs=(kind.weights_in(irn),),
        ),
        score(STEPS["eval_sem_seg"], irn, irn.masks, "png", infer.eval_list, MASK_SCORES),
    ]  # fmt: skip
    named = dict(zip(STEPS, steps, strict=True))
    return {name: stage for name, stage in named.items() if infer.eval_list or not stage.is_score}


def sample_scores(name: str, config: CRTConfig) -> list[Score]:
    """The rows of the table: the seeds at both thresholds, and the masks."""
    of_seeds = RunFolder(f"{name}_cam").scores(SEED_SCORES)
    of_masks = RunFolder(f"{name}_irn").scores(MASK_SCORES)
    eval_list = config.infer.eval_list
    rows = [Score(f"seeds, {point} threshold", of_seeds, eval_list, point) for point in ("best", "fixed")]
    return [*rows, Score("masks (irn)", of_masks, eval_list)]


if __name__ == "__main__":
    run_script(main)
