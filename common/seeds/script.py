"""The inference script of a classifier: seeds of a list, their pictures, CRF and score."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from common.data.dataset import LabelledImages
from common.data.outputs import write_each
from common.data.stamp import SEEDS, stamp_of
from common.nets.load import load_network
from common.run.folder import SEED_SCORES
from common.run.processes import stop_processes
from common.run.script import Setup
from common.score.images import scored_images
from common.score.report import report, score_folder
from common.seeds.infer import MapsOf, SeedFolder, infer_seeds, view_maps
from common.seeds.options import ClassTokenInferConfig
from common.seeds.products import draw_seeds, refine_by_crf
from common.seeds.score import score_seeds


class ClassTokenNetwork(Protocol):
    """A network whose class tokens give CAMs."""

    def foreground_maps(self, kind: str) -> Callable[[Tensor], Tensor]:
        """Function of images (b, 3, H, W) that gives CAMs (b, C, h, w) of a kind of `common.nets.options.SEED_MAPS`."""


def foreground_maps(model: ClassTokenNetwork, config: ClassTokenInferConfig) -> MapsOf:
    """Seeds of a network with class tokens: its `foreground_maps` over the views of the configuration."""
    return view_maps(model.foreground_maps(config.seed_map), config)


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


def run_inference(
    setup: Setup,
    build: Callable[[Any, int], nn.Module],
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
    maps_of: Callable[[Any, Any], MapsOf] = foreground_maps,
    write: Callable[[Setup, Any, LabelledImages, dict[str, Any], MapsOf], Path] = write_dict,
) -> None:
    """Runs the inference in the order data, model, seeds, CRF, pictures, score.

    Args:
        build: makes the network of a configuration for a number of classes.
        needed: see `load_network`.
        maps_of: gives the function that makes seeds, from the network and the section ``infer``.
        write: writes them, as `write_dict`.
    """
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer

    # Data: without --dict nothing is stored, so only the scored images are needed
    if args.dict:
        images = LabelledImages(config.data, infer.image_list)
        images.require_labels(every=False)
    else:
        images = scored_images(LabelledImages, config.data, infer.eval_list or infer.image_list, config.eval)

    # Model
    model = build(config, len(images.classes))
    weights = load_network(setup, images, model, needed)
    maps = maps_of(model, infer)

    if not args.dict:
        report(score_seeds(maps, images, infer, config.eval, runtime), run, SEED_SCORES, processes)
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
