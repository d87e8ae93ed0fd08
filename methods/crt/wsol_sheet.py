"""The contact sheet of CRT's object localisation: images, CAMs, true and found boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from common.data.cub import CUBImages
from common.data.transforms import eval_transform
from common.run.device import Runtime
from common.score.boxes import stretched
from common.visual import contact_sheet, overlay_cam
from methods.crt.model import DeiTBranch
from methods.crt.wsol_model import class_cams
from methods.crt.wsol_scoring import Finding

TRUE = (0, 200, 0)  # colours of boxes
FOUND = (230, 0, 0)
ACROSS = 4  # panels in a row of the sheet, two for an image


def draw_sheet(
    path: Path, deit: DeiTBranch, images: CUBImages, findings: Sequence[Finding], count: int, side: int,
    runtime: Runtime, title: str,
) -> None:  # fmt: skip
    """Draws images spread over the set, and their CAMs, with the true box and the box of the true class.

    Args:
        title: the line above them.
    """
    panels = []
    for position in np.linspace(0, len(findings) - 1, min(count, len(findings))).round().astype(int).tolist():
        finding: Finding = findings[position]
        located = finding.located
        verdict = finding.verdict
        square = images.load_image(finding.index).resize((side, side), Image.Resampling.BILINEAR)
        with torch.inference_mode(), runtime.autocast():
            cam = class_cams(deit, eval_transform(square)[None].to(runtime.device))[1][0, located.label]
        picture = np.asarray(square)
        boxes = (located.true_boxes[0], TRUE), (located.known_box, FOUND)
        heat = overlay_cam(picture, stretched(cam.cpu().numpy(), side))
        panels += [
            (f"{images.classes[located.label]}, IoU {verdict.iou:.2f}", with_boxes(picture, boxes)),
            (f"{verdict.outcome}: {images.classes[located.top[0]]}", with_boxes(heat, boxes)),
        ]
    rows = [panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)]
    contact_sheet(rows, path, header=[title], legend={"true box": TRUE, "box found for the true class": FOUND})


def with_boxes(picture: np.ndarray, boxes: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """A picture, uint8 RGB (S, S, 3), with boxes in colours."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for box, colour in boxes:
        draw.rectangle(box.tolist(), outline=colour, width=max(len(picture) // 96, 1))
    return np.asarray(image)
