"""The inference script of a classifier: seeds of a list, pictures and CRF of them, their score."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from common.checkpoint import epoch_checkpoint
from common.data.dataset import ImageSet
from common.dist import stop_processes
from common.infer import SeedFolder, write_seeds
from common.pretrained import load_checked, state_dict_in
from common.scoring import report_seeds, score_folder, score_seeds, scored_images
from common.script import start_inference, start_run
from common.seed_products import draw_seeds, refine_by_crf
from common.vit import ViTBackbone


def run_inference(
    description: str,
    cls: type,
    default_exp: str,
    build: Callable[[Any, int], ViTBackbone],
    needed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda state: state,
) -> None:
    """Goes in the order config, data, model; then seeds, CRF, pictures, score.

    Args:
        description: the script's docstring, for ``--help``.
        cls: the method's configuration.
        default_exp: the experiment without ``--exp``.
        build: makes the network of a configuration for a number of classes; its ``foreground_maps`` makes the seeds.
        needed: picks from a checkpoint what this network has, where trainings save more than seeds need.
    """
    setup = start_inference(description, cls, default_exp)
    args, config, run, processes, runtime = setup.args, setup.config, setup.run, setup.processes, setup.runtime
    infer = config.infer

    # Data: without --dict nothing is stored, so only the images that are scored are of use
    if args.dict:
        images = ImageSet(config.data, infer.image_list)
    else:
        images = scored_images(config.data, infer.eval_list or infer.image_list, config.eval)

    # Model
    checkpoint = args.load_pretrained or epoch_checkpoint(run.checkpoints, args.load_epo)
    model = build(config, len(images.classes))
    coverage = load_checked(model, needed(state_dict_in(checkpoint)), str(checkpoint))
    model.to(runtime.device).eval()
    cams_of = model.foreground_maps(infer.seed_map)
    start_run(run, config, processes, keep_config=True)
    if processes.is_main:
        print(f"{checkpoint}: {coverage}. {len(images)} images of {images.list_name!r} on {runtime.describe()}")

    if not args.dict:
        report_seeds(score_seeds(cams_of, images, infer, config.eval, runtime), run, runtime)
        return stop_processes()

    # Seeds, and what is made of them
    settings = {"checkpoint": str(checkpoint), "modified": checkpoint.stat().st_mtime_ns, "seed_map": infer.seed_map}
    seeds = SeedFolder(run.path / args.dict_dir, settings, infer, runtime, args.overwrite)
    written = write_seeds(cams_of, images, infer, runtime, seeds)
    if processes.is_main:
        print(f"{seeds.path}: {written} seeds written, {len(set(images.ids)) - written} were there")
    if args.crf:
        refine_by_crf(images, seeds.path, run.path / "crf", infer, processes)
    if args.vis:
        draw_seeds(images, seeds.path, run.path / "vis", infer, processes)
    if infer.eval_list:
        report_seeds(
            score_folder(seeds.path, images, infer.eval_list, config.eval, runtime, infer.num_workers), run, runtime
        )
    return stop_processes()
