"""Writes CTI's seeds.

python methods/cti/infer_trm.py --name exp --load_epo 59 --dict                     seeds of the run's epoch 59
python methods/cti/infer_trm.py --name new --load_pretrained 69.5_pascal.pth --dict   of a released checkpoint
python methods/cti/infer_trm.py --name exp --load_epo 59 --dict --vis --crf           with pictures and dense CRF
python methods/cti/infer_trm.py --name exp --load_epo 59                            only the score, nothing written
torchrun --nproc_per_node 2 methods/cti/infer_trm.py --name exp --load_epo 59 --dict  shared by two processes
"""

from common.checkpoint import epoch_checkpoint
from common.data.dataset import ImageSet
from common.dist import start_processes, stop_processes
from common.errors import run_script
from common.infer import SeedFolder, write_seeds
from common.pretrained import load_checked, state_dict_in
from common.runtime import Runtime
from common.scoring import report_seeds, score_folder, score_seeds, scored_images
from common.script import infer_arguments, open_inference_run, start_run
from common.seed_products import draw_seeds, refine_by_crf
from methods.cti.config import CTIConfig
from methods.cti.model import CTI


def main() -> None:
    """Sets up in the order config, processes, data, model; then seeds, CRF, pictures, score."""
    args, overrides = infer_arguments(__doc__, CTIConfig, "cti_cvpr24")
    processes = start_processes()
    config, run = open_inference_run(args, overrides, CTIConfig)
    runtime, infer = Runtime(config.runtime, processes), config.infer

    # Data: without --dict nothing is stored, so only the images that are scored are of use
    if args.dict:
        images = ImageSet(config.data, infer.image_list)
    else:
        images = scored_images(config.data, infer.eval_list or infer.image_list, config.eval)

    # Model
    checkpoint = args.load_pretrained or epoch_checkpoint(run.checkpoints, args.load_epo)
    model = CTI(config.model, len(images.classes))
    coverage = load_checked(model, state_dict_in(checkpoint), str(checkpoint))
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


if __name__ == "__main__":
    run_script(main)
