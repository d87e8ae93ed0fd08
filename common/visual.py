"""Pictures: CAM overlays, contact sheets, and the curve of an evaluation. Masks are written by `common.data.masks`."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.data.classes import BACKGROUND, IGNORE_LABEL
from common.data.masks import voc_palette
from common.data.seed_labels import seed_labels
from common.run.files import atomic_write

CAPTION_SIZE = 15  # pixels of type
MARGIN = 6
PALETTE = voc_palette()
TRUE_MASK = "true mask"  # caption of the annotated mask, on every sheet

Colour = tuple[int, int, int]
ERRORS: dict[str, Colour] = {  # pixels of an error panel
    "right class": (150, 200, 150), "missed": (40, 90, 220), "too much": (225, 50, 40), "wrong class": (245, 165, 30),
    "ignored": (0, 0, 0), "right background": (235, 235, 235),
}  # fmt: skip


@functools.cache
def caption_font() -> Any:
    """The type of captions and legends."""
    return ImageFont.load_default(CAPTION_SIZE)


def save_image(path: str | Path, image: Image.Image) -> None:
    """Writes a picture as PNG, atomically."""
    with atomic_write(path, durable=False) as file:
        image.save(file, format="PNG")


def colour_mask(mask: np.ndarray) -> np.ndarray:
    """RGB uint8 (H, W, 3) of a label mask uint8 (H, W)."""
    return PALETTE[mask]


def overlay_cam(image: np.ndarray, cam: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """A CAM in colours over its image: viridis, whose lightness grows evenly from 0 (dark blue) to 1 (yellow).

    Args:
        image: uint8 RGB (H, W, 3).
        cam: float (H, W), values in [0, 1].

    Returns:
        uint8 RGB (H, W, 3).
    """
    heat = cv2.applyColorMap(np.round(np.clip(cam, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.round((1 - opacity) * image + opacity * heat).astype(np.uint8)


def cam_panels(
    image: np.ndarray,
    seed: Mapping[int, np.ndarray],
    classes: Sequence[str],
    threshold: float | None = None,
    mask: np.ndarray | None = None,
) -> list[tuple[str, np.ndarray]]:
    """One image's row of a `contact_sheet`: image, mask if given, seed mask if a threshold is given, CAMs by class.

    Args:
        image: uint8 RGB (H, W, 3).
        seed: {foreground class index: float (H, W)}.
        classes: foreground class names.
        mask: true labels, uint8 (H, W).
    """
    panels = [("image", image)]
    if mask is not None:
        panels.append(mask_panel(TRUE_MASK, mask, classes))
    if threshold is not None:
        labels = seed_labels(seed, threshold, image.shape[:2])
        panels.append(mask_panel(f"seed at {threshold:.2f}", labels, classes))
    return panels + [(f"CAM: {classes[key]}", overlay_cam(image, seed[key])) for key in sorted(seed)]


def mask_panel(title: str, mask: np.ndarray, classes: Sequence[str]) -> tuple[str, np.ndarray]:
    """One panel for `contact_sheet`: a label mask, uint8 (H, W), in colours, captioned with its classes."""
    return f"{title}: {_names(mask, classes)}", colour_mask(mask)


def error_panel(labels: np.ndarray, mask: np.ndarray) -> tuple[str, np.ndarray]:
    """One panel for `contact_sheet`: predicted against true labels, both (H, W), in the colours of `ERRORS`."""
    names = np.select(
        [mask == IGNORE_LABEL, (labels == mask) & (mask == 0), labels == mask, labels == 0, mask == 0],
        ["ignored", "right background", "right class", "missed", "too much"], "wrong class",
    )  # fmt: skip
    picture = np.zeros((*mask.shape, 3), dtype=np.uint8)
    for name, colour in ERRORS.items():
        picture[names == name] = colour
    valid = mask != IGNORE_LABEL
    wrong = np.mean(labels[valid] != mask[valid]) if valid.any() else 0.0
    return f"errors: {wrong:.1%} of the pixels", picture


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]], path: str | Path, panel: int = 240, header: Sequence[str] = (),
    legend: Mapping[str, Colour] | None = None,
) -> None:  # fmt: skip
    """Writes rows of captioned pictures as one PNG.

    Args:
        rows: For each row (caption, uint8 RGB (H, W, 3)) panels; rows may differ in length.
        panel: Longer side of a picture, in pixels; smaller ones are enlarged with crisp pixels.
        header: lines of text above them.
        legend: colours and their meanings, in a line of its own below the header.
    """
    font = caption_font()
    line = CAPTION_SIZE + MARGIN
    above = line * (len(header) + bool(legend))
    fitted = [[(caption, _fit(picture, panel)) for caption, picture in row] for row in rows]
    heights = [max((picture.height for _, picture in row), default=0) for row in fitted]
    columns = max((len(row) for row in fitted), default=0)
    width = max([columns * (panel + MARGIN), *(round(font.getlength(text)) + MARGIN for text in header)])
    size = (MARGIN + width, MARGIN + above + sum(height + line + MARGIN for height in heights))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(header):
        draw.text((MARGIN, MARGIN + number * line), text, fill="black", font=font)
    _paste_legend(sheet, _legend_rows(legend or {}, math.inf), MARGIN + len(header) * line)
    top = MARGIN + above
    for row, height in zip(fitted, heights, strict=True):
        for column, (caption, picture) in enumerate(row):
            left = MARGIN + column * (panel + MARGIN)
            draw.text((left, top), _shortened(caption, panel, font), fill="black", font=font)
            sheet.paste(picture, (left, top + line))
        top += height + line + MARGIN
    save_image(path, sheet)


@functools.lru_cache(maxsize=2048)
def _legend_entry(text: str, colour: Colour) -> Image.Image:
    """A square of colour and its meaning, with room to the next one; many images have the same entries."""
    font = caption_font()
    width = CAPTION_SIZE + math.ceil(font.getlength(text)) + 4 * MARGIN
    entry = Image.new("RGB", (width, CAPTION_SIZE + MARGIN), "white")
    draw = ImageDraw.Draw(entry)
    draw.rectangle((0, 2, CAPTION_SIZE - 2, CAPTION_SIZE), fill=colour, outline="black")
    draw.text((CAPTION_SIZE + 2, 0), text, fill="black", font=font)
    return entry


def _legend_rows(legend: Mapping[str, Colour], width: float) -> list[list[Image.Image]]:
    """The entries of a legend in rows that are no wider than a picture, of one entry at least."""
    rows: list[list[Image.Image]] = [[]]
    left = MARGIN
    for entry in itertools.starmap(_legend_entry, legend.items()):
        if rows[-1] and left + entry.width > width:
            rows.append([])
            left = MARGIN
        rows[-1].append(entry)
        left += entry.width
    return rows


def _paste_legend(sheet: Image.Image, rows: Sequence[Sequence[Image.Image]], top: int) -> None:
    """Puts the rows of a legend on a sheet."""
    for row in rows:
        left = MARGIN
        for entry in row:
            sheet.paste(entry, (left, top))
            left += entry.width
        top += CAPTION_SIZE + MARGIN


def save_overlay(
    path: str | Path, image: np.ndarray, seed: Mapping[int, np.ndarray], classes: Sequence[str], panel: int = 320
) -> None:
    """Writes one image and its CAMs, captioned with the class names, side by side (``--vis``)."""
    contact_sheet([cam_panels(image, seed, classes)], path, panel)


@functools.lru_cache(maxsize=256)
def _blended(label: int, opacity: float) -> np.ndarray:
    """The values 0 to 255 of each channel under the colour of a label, uint8 (1, 256, 3): a table for all images."""
    return np.round((1 - opacity) * np.arange(256)[:, None] + opacity * PALETTE[label]).astype(np.uint8)[None]


def overlay_mask(image: np.ndarray, mask: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """A label mask in colours over its image; the borders of its regions are in full colour.

    Args:
        image: uint8 RGB (H, W, 3).
        mask: uint8 (H, W).

    Returns:
        uint8 RGB (H, W, 3).
    """
    is_border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    overlay = image.copy()
    for label in np.unique(mask[mask > 0]).tolist():
        own = mask == label
        cv2.copyTo(cv2.LUT(image, _blended(label, opacity)), own.view(np.uint8), overlay)
        overlay[own & is_border] = PALETTE[label]
    return overlay


def save_prediction(
    path: str | Path, image: np.ndarray, mask: np.ndarray, classes: Sequence[str], scores: Mapping[str, float],
    longest: int = 1600,
) -> None:  # fmt: skip
    """Writes an image under its mask as JPEG, atomically, with a legend of the classes and their scores below it.

    Args:
        image: uint8 RGB (H, W, 3).
        mask: uint8 (H, W).
        longest: side in pixels above which the picture is made smaller.
    """
    factor = min(1.0, longest / max(mask.shape))
    if factor < 1:
        size = max(round(mask.shape[1] * factor), 1), max(round(mask.shape[0] * factor), 1)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    picture = Image.fromarray(overlay_mask(image, mask))
    found = set(np.unique(mask).tolist())
    legend = {
        f"{name} {scores[name]:.2f}" + ("" if label in found else " (no pixel)"): tuple(PALETTE[label].tolist())
        for label, name in enumerate(classes, start=1)
        if name in scores
    }
    rows = _legend_rows(legend or {"no class found": (255, 255, 255)}, max(picture.width, 2 * MARGIN))
    line = CAPTION_SIZE + MARGIN
    size = max(picture.width, 10 * CAPTION_SIZE), picture.height + line * len(rows) + MARGIN
    sheet = Image.new("RGB", size, "white")
    sheet.paste(picture, (0, 0))
    _paste_legend(sheet, rows, picture.height + MARGIN // 2)
    with atomic_write(path, durable=False) as file:
        sheet.save(file, format="JPEG", quality=90)


def plot_curve(
    path: str | Path, thresholds: np.ndarray, miou: np.ndarray, marks: Mapping[str, tuple[float, float]], title: str,
    bounds: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Writes the curve of mIoU (percent) over the background threshold as PNG.

    Args:
        marks: Points to mark, (threshold, mIoU) by their text in the legend.
        bounds: scores of trivial predictions, drawn as level lines, by their text in the legend.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(thresholds, miou, color="tab:blue", marker="." if len(thresholds) == 1 else "")
    styles = (("tab:red", "o"), ("tab:green", "s"), ("tab:orange", "^"), ("tab:purple", "D"))
    for (text, (threshold, value)), (colour, marker) in zip(marks.items(), styles, strict=False):
        axes.plot(threshold, value, color=colour, marker=marker, linestyle="", label=text)
        axes.axvline(threshold, color=colour, linewidth=0.8, linestyle=":")
    for (text, value), style in zip((bounds or {}).items(), ("--", "-."), strict=False):
        axes.axhline(value, color="grey", linewidth=1, linestyle=style, label=text)
    axes.set(xlabel="background threshold", ylabel="mIoU (%)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=120)


def plot_loss(path: str | Path, steps: Sequence[int], losses: Sequence[float], title: str) -> None:
    """Writes the curve of a loss over the steps, and its running mean over a twentieth of them, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    window = max(len(losses) // 20, 1)
    sums = np.cumsum([0.0, *losses])
    means = (sums[window:] - sums[:-window]) / window
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=0.8, label="loss")
    axes.plot(steps[window - 1 :], means, color="tab:blue", label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=120)


def heat_maps(path: Path, maps: np.ndarray, names: Sequence[str], title: str) -> None:
    """Draws maps (n, H, W) of values in [0, 1] side by side, ten in a row, with their names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(names), 10)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(1.3 * columns + 0.5, 4.5), 1.5 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, name, values in zip(axes.flat, names, maps, strict=False):
        picture = axis.imshow(values, vmin=0, vmax=1)
        axis.set_title(name, fontsize=8)
    figure.colorbar(picture, ax=axes, shrink=0.8)
    figure.suptitle(title, fontsize=9)
    with atomic_write(path, durable=False) as file:
        figure.savefig(file, format="png", dpi=110)


def _names(mask: np.ndarray, classes: Sequence[str]) -> str:
    """The names of the classes in a mask; background, if it has none."""
    present = [classes[label - 1] for label in np.unique(mask) if label not in (0, IGNORE_LABEL)]
    return ", ".join(present) or BACKGROUND


def _fit(picture: np.ndarray, panel: int) -> Image.Image:
    """The picture at the size of a panel; a small one is enlarged without blur."""
    height, width = picture.shape[:2]
    factor = panel / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    image = Image.fromarray(picture)
    if factor <= 1:
        return image.resize(size, Image.Resampling.LANCZOS)
    whole = math.ceil(factor)  # only whole factors keep all pixels equal; the rest of the way is averaging
    return image.resize((width * whole, height * whole), Image.Resampling.NEAREST).resize(size, Image.Resampling.BOX)


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, cut to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,:") + "…"
