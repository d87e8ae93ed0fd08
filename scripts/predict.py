"""Predicts images that need no labels: masks, overlays, a table, by the code of the methods' own inference.

    python scripts/predict.py --name exp photo.jpg folder/ --out predictions           a run's network
    python scripts/predict.py --name exp folder/ --labels labels.csv --threshold 0.35  classes are given by a table
    python scripts/predict.py --name exp photo.jpg --classes cat,dog                   or by their names; or all
    python scripts/predict.py --name toco photo.jpg                                    ToCo, DeepLab: segmentation
    python scripts/predict.py --load_pretrained 69.5_pascal.pth --exp cti_cvpr24 photo.jpg
    python scripts/predict.py --name exp folder/ --format coco cvat                    files of annotation tools, too
    python scripts/predict.py --name exp --tune_on val                                 thresholds of class scores
    python scripts/predict.py --name exp --score_on test                               F1 of the classes, and mIoU
    torchrun --nproc_per_node 2 scripts/predict.py --name exp folder/                  shared by two processes

Without --labels and --classes the network tells the classes: those whose score is above the threshold that validation
during training, or --tune_on, has stored in classes.json beside the weights. --out gets masks/, overlays/,
predictions.csv and manifest.json; a call that was interrupted goes on where it stopped. An image that cannot be read is
named, and the exit code is 1 at the end.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.data.masks import read_mask
from common.data.prepare.annotations import FORMATS, Annotated, open_writers
from common.pipeline.builders import PREDICTING, Predicting, named, predicting
from common.run.command import ScriptParser, number, parse_config, script_parser
from common.run.config import BELOW_ONE, at_least, config_path, load_config
from common.run.errors import UserError, preview, run_script
from common.run.files import require_weights
from common.run.folder import RunFolder, epoch_checkpoint
from common.run.papers import Instead
from common.run.processes import start_processes, stop_processes

if TYPE_CHECKING:
    from common.data.whole import Failures
    from common.predict.photos import Photos
    from common.predict.predictor import Predictor
    from common.predict.results import ResultFolder

READS = ("model", "eval", "runtime", "data.classes", "data.exif", "data.range")  # and the section of inference
IGNORES = (
    "infer.image_list", "infer.eval_list", "infer.segment.image_list", "infer.crf_alphas", "infer.vis_limit",
    "runtime.num_workers",
)  # fmt: skip


def source(argv: Sequence[str]) -> tuple[Path, Predicting]:
    """The YAML of the network that the command line names, and its kind.

    Raises:
        UserError: it names none, or one that does not predict.
    """
    first = ScriptParser(add_help=False, allow_abbrev=False)
    for flag in ("--name", "--exp", "--load_pretrained"):
        first.add_argument(flag, default="")
    args, _ = first.parse_known_args(argv)
    if bool(args.name) == bool(args.load_pretrained):
        raise UserError(
            "name one network: a run with --name NAME, or a file with --load_pretrained FILE --exp EXPERIMENT"
        )
    if args.load_pretrained and not args.exp:
        experiments = ", ".join(kind.exp for kind in PREDICTING.values())
        raise UserError(f"--load_pretrained needs --exp, the experiment of the weights, such as {experiments}")
    path = config_path(args.exp) if args.exp else RunFolder(args.name).existing().config
    if not path.is_file():
        raise UserError(
            f"no {path}: a training writes it. Name another run, or the experiment of its weights with --exp"
        )
    return path, predicting(path)


def parser_of(kind: Predicting | None) -> ScriptParser:
    """The command line, with the keys of a method's configuration."""
    reads = (*READS, kind.section) if kind else READS
    parser = script_parser(__doc__, named(kind.config) if kind else None, reads, IGNORES)
    add = parser.add_argument
    add("--name", default="", help="the run whose network predicts")
    add("--exp", default="", help="experiment YAML; default: the run's own configuration")
    add("--load_epo", type=number(int, at_least(0)), help="epoch or iteration; default: the best, else the last one")
    add("--load_pretrained", type=Path, help="a checkpoint file from anywhere, with --exp")
    add("--key", default="", help="the state dict's name in that file, where it holds several")
    add("--out", type=Path, help="folder of the predictions (default: predictions/NAME)")
    add("--labels", type=Path, help="table of image labels, as labels.csv of a data set: the classes of each image")
    add("--classes", help="names of the classes of all images, separated by commas; or all")
    add("--threshold", type=number(float, BELOW_ONE), help="background threshold of seeds (default: the stored one)")
    add(
        "--tune_on", metavar="LIST", help="first find the thresholds on a labelled list of the data set, and store them"
    )
    add("--score_on", metavar="LIST", help="score the predictions of a labelled list of the data set; none is written")
    add(
        "--format", nargs="+", default=[], choices=FORMATS, help="also write files of annotation tools, of all in --out"
    )
    add("--seeds", action="store_true", help="also write the seeds")
    add("--overwrite", action="store_true", help="delete predictions of other settings in --out")
    parser.paper = {**parser.paper, "--resume": Instead(takes=0, reason="a call goes on where it stopped by itself")}
    return parser


def setup(argv: Sequence[str]) -> tuple[argparse.Namespace, Any, Path, list[str]]:
    """Arguments, configuration, weights, and the images and folders that are named.

    Raises:
        UserError: they are not usable, or contradict each other.
    """
    if {"-h", "--help"} & set(argv):
        try:
            parser_of(source(argv)[1]).parse_args(["--help"])
        except UserError:  # no network is named: the flags alone
            parser_of(None).parse_args(["--help"])
    path, kind = source(argv)
    args, texts = parse_config(parser_of(kind), argv, has_words=True)
    places = [text for text in texts if "=" not in text or Path(text).exists()]
    config = load_config(named(kind.config), path, [text for text in texts if text not in places])
    if args.labels and args.classes:
        raise UserError("--labels and --classes both tell the classes; give one of them")
    if not places and not (args.tune_on or args.score_on):
        raise UserError("no image is named: give image files, or folders of images")
    if args.load_pretrained:
        require_weights(args.load_pretrained)
    weights = args.load_pretrained or epoch_checkpoint(
        RunFolder(args.name).checkpoints, args.load_epo, named(kind.file), kind.unit
    )
    return args, config, weights, places


def main() -> int:
    """Command line → network → predictions. Returns the exit code: 1 if an image could not be read."""
    args, config, weights, places = setup(sys.argv[1:])

    from common.data.outputs import BackgroundWriter
    from common.predict.photos import find_photos
    from common.predict.predictor import Predictor
    from common.predict.results import ResultFolder
    from common.run.device import Runtime

    # Images, network, thresholds
    files, notes = find_photos(places) if places else ({}, [])
    if args.check:
        print("\n".join([*notes, f"nothing is missing: weights {weights}; {len(files)} images"]))
        return 0
    processes = start_processes()
    predictor = Predictor(config, weights, Runtime(config.runtime, processes), args.key, args.threshold)
    if args.tune_on:
        processes.say(f"thresholds of list {args.tune_on!r}: {predictor.tune(args.tune_on)}")
    if args.score_on:
        from common.predict.score import score_list

        processes.say(f"list {args.score_on!r}: {score_list(predictor, args.score_on)}")
    if not files:
        stop_processes()
        return 0

    # Images that cannot be read are told apart before the work
    photos = labelled_photos(args, predictor, files)
    damaged = photos.unreadable(processes.is_main, predictor.least_side())
    failed = {photos.ids[index]: message for index, message in damaged.items()}
    photos = photos.without(damaged)
    for line in [*notes, *predictor.notes(photos.labels is not None), *failed.values()]:
        processes.say(line)
    if not len(photos):
        raise UserError(f"none of the {len(failed)} images can be read: {preview(failed)}. Nothing is written")

    # Predictions
    out = args.out or Path("predictions") / (args.name or weights.stem)
    results = ResultFolder(out, predictor, photos, args.overwrite, args.seeds)
    there = sum(map(results.is_done, photos.ids))
    processes.barrier()  # all have counted
    undecoded: Failures = {}
    with BackgroundWriter() as writer:
        for prediction in predictor.predict(photos, results.is_done, undecoded):
            writer.submit(functools.partial(results.write, prediction))

    late = {
        photos.ids[index]: message for part in processes.gather_objects(undecoded) for index, message in part.items()
    }
    for line in late.values():
        processes.say(line)
    if processes.is_main:
        results.close()
        export(results, args.format)
    processes.say(f"{out}: {len(photos) - there - len(late)} predictions written, {there} were there")
    failed |= late
    if failed:
        processes.say(f"error: {len(failed)} images could not be read: {preview(failed)}")
    stop_processes()
    return int(bool(failed))


def labelled_photos(args: argparse.Namespace, predictor: "Predictor", files: dict[str, Path]) -> "Photos":
    """The images, with the labels that the command line gives.

    Raises:
        UserError: labels are missing, or name no class.
    """
    from common.predict.presence import labels_in, named_classes

    photos = predictor.photos(files)
    if args.labels:
        photos.labels = labels_in(args.labels, files, predictor.classes)
    elif args.classes is not None:
        photos.labels = named_classes(args.classes, predictor.classes)[None].repeat(len(photos), axis=0)
    return photos


def export(results: "ResultFolder", formats: Sequence[str]) -> None:
    """Writes the masks of all images in the folder as files of annotation tools."""
    writers = open_writers(formats, results.path, results.classes)
    for image_id, file_name in results.images() if writers else ():
        mask = read_mask(results.masks.file(image_id))
        for writer in writers:
            writer.add(Annotated(image_id, file_name, mask))
    for writer in writers:
        print(f"written: {writer.close()}")


if __name__ == "__main__":
    run_script(main)
