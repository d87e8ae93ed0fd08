"""Scores CRT's object localisation: classes, boxes, and why those boxes are wrong that are.

python methods/crt/eval_wsol.py --name wsol --vis                                best and last weights of a run
python methods/crt/eval_wsol.py --name wsol --load_epo 59                           of an epoch (from 0)
python methods/crt/eval_wsol.py --name new --load_pretrained model_best.pth         of a released checkpoint
torchrun --nproc_per_node 2 methods/crt/eval_wsol.py --name wsol                 shared by two processes

Writes experiment/NAME/eval_wsol.json, boxes_<weights>.csv and, with --vis, wsol_<weights>.png.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from common.data.cub import CUBImages
from common.data.transforms import eval_transform
from common.nets.load import load_checked, state_dict_in
from common.run.device import Runtime
from common.run.errors import run_script
from common.run.files import write_json
from common.run.folder import BEST_FILE, LAST_FILE, epoch_checkpoint
from common.run.processes import stop_processes
from common.run.script import Setup, Usage, start, start_run
from common.visual import contact_sheet, overlay_cam
from methods.crt.boxes import stretched
from methods.crt.localization import OUTCOMES, PERCENTAGES
from methods.crt.model import DeiTBranch, released_deit
from methods.crt.wsol_config import BEST_LOC_FILE, WSOLConfig
from methods.crt.wsol_model import class_cams, wsol_deit
from methods.crt.wsol_scoring import Finding, locate, summary, write_boxes

EVALUATION = Usage(
    weights="the best and the last",
    flags=(
        ("--vis", {"action": "store_true", "help": "draw a sheet of images, CAMs, true and found boxes"}),
        ("--least", {
            "type": float, "default": -1.0, "help": "exit with 1 if the last weights' GT-known (%%) is not above this",
        }),
    ),
    ignores=("views", "loss", "optim", "train", "runtime.seed", "runtime.compile"),
)  # fmt: skip
TITLES = {"best": "best GT-known", "best_loc": "best Loc@1", "last": "last"}  # of a run's weights
HEADINGS = ("Cls@1", "Cls@5", "Loc@1", "Loc@5", "GT-known")
TRUE, FOUND = (0, 200, 0), (230, 0, 0)  # colours of boxes
ACROSS = 4  # panels in a row of the sheet, two for an image


def main() -> int:
    """Goes in the order config, data, model; then boxes, scores, pictures for each of the weights. The exit code."""
    setup = start(__doc__, WSOLConfig, "crt_cub", EVALUATION)
    config, run, runtime, side = setup.config, setup.run, setup.runtime, setup.config.model.deit.img_size

    # Data and model; all weights are tried before the work begins
    images = CUBImages(config.data, config.eval.image_list)
    deit, checkpoints = wsol_deit(config.model, len(images.classes)), chosen_weights(setup)
    for path in checkpoints.values():
        load_checked(deit, released_deit(state_dict_in(path)), str(path))
    deit.to(runtime.device).eval()
    start_run(run, config, setup.processes, keep_config=True)
    if setup.processes.is_main:
        print(f"{len(images)} images of {images.list_name!r} on {runtime.describe()}")

    # Boxes, scores, pictures
    results = {}
    for name, path in checkpoints.items():
        load_checked(deit, released_deit(state_dict_in(path)), str(path))
        findings = locate(deit, images, config.eval, side, runtime, name)
        chosen_on = config.train.val_list if name in ("best", "best_loc") else None
        results[name] = {"checkpoint": str(path), "chosen_on": chosen_on, **summary(findings)}
        if setup.processes.is_main:
            write_boxes(run.path / f"boxes_{name}.csv", findings, images)
        if setup.processes.is_main and setup.args.vis:
            draw_sheet(run.path / f"wsol_{name}.png", deit, images, findings, config.eval.vis_limit, side, runtime)
    if setup.processes.is_main:
        content = {
            "list": images.list_name, "images": len(images), "classes": len(images.classes), "unit": "percent",
            "cam_threshold": config.eval.cam_threshold, "weights": results,
        }  # fmt: skip
        write_json(run.path / "eval_wsol.json", content)
        print("\n".join(report(results)))
        print(f"all numbers: {run.path}/eval_wsol.json; every box: boxes_<weights>.csv beside it")
    stop_processes()
    return int(results[name]["gt_known"] <= setup.args.least)  # the last weights, or the only ones


def chosen_weights(setup: Setup[WSOLConfig]) -> dict[str, Path]:
    """The files to score, by a name for what is made with them.

    Raises:
        UserError: there is none.
    """
    args, folder = setup.args, setup.run.checkpoints
    if args.load_pretrained:
        return {args.load_pretrained.stem: args.load_pretrained}
    if args.load_epo is not None:
        return {f"epoch_{args.load_epo}": epoch_checkpoint(folder, args.load_epo)}
    own = {"best": folder / BEST_FILE, "best_loc": folder / BEST_LOC_FILE, "last": folder / LAST_FILE}
    there = {name: path for name, path in own.items() if path.is_file()}
    return there or {"best": epoch_checkpoint(folder, None)}  # says what is missing


def report(results: dict[str, dict]) -> list[str]:
    """The scores as lines of text: a table, and what came of the boxes of the first class."""
    titles = {
        name: TITLES.get(name, name) + (f" (chosen on {result['chosen_on']})" if result["chosen_on"] else "")
        for name, result in results.items()
    }
    width = max(map(len, titles.values()))
    lines = [" " * width + "".join(f"{heading:>10}" for heading in HEADINGS)]
    for name, result in results.items():
        lines.append(f"{titles[name]:{width}}" + "".join(f"{result[key]:10.2f}" for key in PERCENTAGES))
    for name, result in results.items():
        lines.append(f"{titles[name]}: " + ", ".join(f"{key} {result[f'top1_{key}']:.2f}" for key in OUTCOMES))
    return lines


def draw_sheet(
    path: Path, deit: DeiTBranch, images: CUBImages, findings: Sequence[Finding], count: int, side: int,
    runtime: Runtime,
) -> None:  # fmt: skip
    """Writes pictures of images spread over the set: true box green, that of the true class red, over image and CAM."""
    panels = []
    for position in np.linspace(0, len(findings) - 1, min(count, len(findings))).round().astype(int).tolist():
        finding: Finding = findings[position]
        located = finding.located
        verdict = finding.verdict
        square = images.load_image(finding.index).resize((side, side), Image.Resampling.BILINEAR)
        with torch.inference_mode(), runtime.autocast():
            cam = class_cams(deit, eval_transform(square)[None].to(runtime.device))[1][0, located.label]
        picture, boxes = np.asarray(square), ((located.true_boxes[0], TRUE), (located.known_box, FOUND))
        heat = overlay_cam(picture, stretched(cam.cpu().numpy(), side))
        panels += [
            (f"{images.classes[located.label]}, IoU {verdict.iou:.2f}", with_boxes(picture, boxes)),
            (f"{verdict.outcome}: {images.classes[located.top[0]]}", with_boxes(heat, boxes)),
        ]
    contact_sheet([panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)], path)


def with_boxes(picture: np.ndarray, boxes: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """A picture, uint8 RGB (S, S, 3), with boxes in colours."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for box, colour in boxes:
        draw.rectangle(box.tolist(), outline=colour, width=max(len(picture) // 96, 1))
    return np.asarray(image)


if __name__ == "__main__":
    run_script(main)
