"""The inference script of a classifier: seeds of a list, their pictures, CRF and score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from common.data.dataset import LabelledImages
from common.data.outputs import write_each
from common.data.stamp import SEEDS, read_stamp, stamp_of
from common.nets.load import load_network
from common.run.errors import UserError
from common.run.files import write_json
from common.run.folder import SEED_SCORES
from common.run.processes import stop_processes
from common.run.script import Setup
from common.score.images import scored_images
from common.score.report import report, score_folder
from common.seeds.face import SeedFace
from common.seeds.faithfulness import faithfulness_line, score_faithfulness
from common.seeds.infer import MapsOf, SeedFolder, infer_seeds
from common.seeds.products import draw_seeds, refine_by_crf
from common.seeds.score import score_seeds


def write_dict(
    setup: Setup, model: nn.Module, images: LabelledImages, weights: dict[str, Any], maps_of: MapsOf
) -> Path:
    """Writes the seeds of an image set into the folder ``--dict_dir``, which is returned.

    Args:
        weights: what `load_network` returned.
    """
    config, runtime = setup.config.infer, setup.runtime
    stamp = stamp_of(SEEDS, setup.method, weights, images)
    seeds = SeedFolder(setup.run.path / setup.args.dict_dir, stamp, config, runtime, setup.args.overwrite)
    write_each(images, seeds, infer_seeds(maps_of, images, config, runtime, seeds.is_done), setup.processes)
    return seeds.path


def _not_written(folder: Path, weights: dict[str, Any]) -> str:
    """The line that tells what an inference without ``--dict`` leaves in the folder of the seeds."""
    stamp = read_stamp(folder)
    if not folder.is_dir():
        return "no seeds were written; --dict writes them"
    same = stamp is not None and stamp.settings.get("weights") == weights["weights"]
    whose = "the same weights" if same else "other weights" if stamp else "an unknown origin"
    return (
        f"no seeds were written; --dict writes them. {folder} holds old seeds, of {whose}: evaluation.py scores these"
    )


def run_inference(
    setup: Setup,
    face: SeedFace,
    write: Callable[[Setup, Any, LabelledImages, dict[str, Any], MapsOf], Path] = write_dict,
) -> None:
    """Runs the inference in the order data, model, seeds, CRF, pictures, score.

    Args:
        face: the classifier.
        write: writes its seeds, as `write_dict`.

    Raises:
        UserError: --faithfulness is given, and the network does not see whole images.
    """
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer

    # Data: without --dict nothing is stored, so only the scored images are needed
    if args.faithfulness and face.logits_of is None:
        raise UserError("--faithfulness needs class logits of whole images; this network sees tiles of them")
    if args.faithfulness:
        images = LabelledImages(config.data, infer.eval_list or infer.image_list)
    elif args.dict:
        images = LabelledImages(config.data, infer.image_list)
        images.require_labels(every=False)
    else:
        images = scored_images(LabelledImages, config.data, infer.eval_list or infer.image_list, config.eval)

    # Model
    model = face.build(config, len(images.classes))
    weights = load_network(setup, images, model, face.needed)
    maps = face.maps_of(model, infer)

    if args.faithfulness and face.logits_of is not None:
        areas = score_faithfulness(maps, face.logits_of(model), images, infer, runtime)
        if processes.is_main:
            write_json(run.path / "faithfulness.json", areas)
        processes.say(f"{faithfulness_line(areas)}: {run.path / 'faithfulness.json'}")
        return stop_processes()
    if not args.dict:
        in_memory = score_seeds(maps, images, infer, config.eval, runtime)
        in_memory.fingerprint |= weights
        report(in_memory, run, SEED_SCORES, processes)
        processes.say(_not_written(run.path / args.dict_dir, weights))
        return stop_processes()

    # Seeds, their CRF, pictures and score
    seeds = write(setup, model, images, weights, maps)
    if args.crf:
        refine_by_crf(images, seeds, run.crf, infer, setup)
    if args.vis:
        draw_seeds(images, seeds, run.pictures, infer, processes)
    if infer.eval_list:
        result = score_folder(seeds, "cam", config.data, infer.eval_list, config.eval, processes, infer.num_workers)
        report(result, run, SEED_SCORES, processes)
    return stop_processes()
