"""Puts the facts, pictures, style and program of a report into one HTML file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.masks import read_mask
from common.report import facts, pictures
from common.report.reference import read_reference
from common.report.source import Source
from common.run.errors import UserError
from common.run.progress import progress
from common.score.bins import ThresholdBins

ASSETS = Path(__file__).parent / "assets"
PROGRAMS = "pictures.js", "gallery.js", "sections.js", "start.js"  # parts of one program, in this order
MOST_RUNS = 5


def content(
    sources: Sequence[Source], ids: Sequence[str], facts_of_origin: dict[str, Any], references: Sequence[str] = ()
) -> dict[str, Any]:
    """All data of the page but the images' pictures.

    Args:
        sources: the run, and the runs that it is compared with.
        ids: the shown images.
        facts_of_origin: commit, versions, device.
        references: published curves besides those of the first run's method, as FILE or FILE:SERIES.

    Raises:
        UserError: the runs cannot stand on one page.
    """
    first = sources[0]
    if len(sources) > MOST_RUNS:
        raise UserError(f"--against: at most {MOST_RUNS - 1} further runs fit on one page")
    if any(source.labels != first.labels for source in sources):
        raise UserError("the runs have different classes; compare runs of one data set")
    grids = [source.thresholds for source in sources if source.thresholds is not None]
    if any(not np.array_equal(grid, grids[0]) for grid in grids):
        raise UserError("the runs were scored at different thresholds; score them alike")
    runs = [facts.run_facts(source) for source in sources]
    curves = [reference for run in runs for reference in run.pop("references")]
    for text in references:
        curves += [{"title": title, "curves": found} for title, found in read_reference(text).items()]
    curves = list({entry["title"]: entry for entry in curves}.values())
    return {
        "origin": facts_of_origin, "labels": first.labels, "colours": facts.colours(first.labels),
        "thresholds": [round(float(value), 6) for value in grids[0]] if grids else None,
        "runs": runs, "comparison": facts.comparison(sources), "references": curves,
        "images": [
            {"id": image_id, "scores": list(scores)}
            for image_id, *scores in zip(ids, *(facts.image_scores(source, ids) for source in sources), strict=True)
        ],
        "total": len(first.images.unique()),
    }  # fmt: skip


def chosen(source: Source, count: int) -> list[str]:
    """Ids of the images to show: two fifths with the lowest IoU, one fifth with the highest, the others spread evenly.

    Without masks all are spread evenly.
    """
    every = [source.images.ids[index] for index in source.images.unique()]
    if count >= len(every):
        return every
    picked: dict[str, None] = {}
    if source.counts is not None:
        scored = source.counts.ids
        order = np.argsort([row["iou"] for row in facts.image_scores(source, scored)], kind="stable")
        low = 2 * count // 5
        high = count // 5
        picked |= dict.fromkeys([scored[index] for index in [*order[:low], *order[len(order) - high :]]])
    rest = [image_id for image_id in every if image_id not in picked]
    for index in np.linspace(0, len(rest) - 1, max(count - len(picked), 0)).round().astype(int).tolist():
        picked[rest[index]] = None
    return [image_id for image_id in every if image_id in picked]


class Images:
    """The pictures of single images, made when they are asked for."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        images = sources[0].images
        self._place = {images.ids[index]: index for index in images.unique()}
        self._bins = [
            None if source.thresholds is None else ThresholdBins(source.thresholds) for source in self.sources
        ]

    def picture(self, image_id: str) -> dict[str, Any]:
        """Photo, truth if there is one, and the predictions of all runs.

        Raises:
            UserError: a file is missing or damaged.
        """
        images = self.sources[0].images
        photo: Image.Image = images.load_image(self._place[image_id])
        shape = photo.height, photo.width
        mask = images.mask_path(image_id)
        truth = None
        if mask.is_file():
            labels = read_mask(mask)
            truth = pictures.label_map(labels) if labels.shape == shape else None
        return {
            "width": photo.width, "height": photo.height, "photo": pictures.photo(photo), "truth": truth,
            "runs": [
                pictures.prediction_entry(source.prediction(image_id, shape), bins, shape)
                for source, bins in zip(self.sources, self._bins, strict=True)
            ],
        }  # fmt: skip


def with_pictures(data: dict[str, Any], images: Images) -> dict[str, Any]:
    """The data with all pictures in it."""

    def entries() -> Iterator[dict[str, Any]]:
        for entry in progress(data["images"], "pictures"):
            yield entry | images.picture(entry["id"])

    return {**data, "images": list(entries())}


def page(data: dict[str, Any]) -> str:
    """The HTML of the page; nothing in it asks for anything outside the file."""
    template, style, *programs = (
        (ASSETS / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", *PROGRAMS)
    )
    # In a script element only "<" can end it or begin a comment.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"STYLE": style, "PROGRAM": "\n".join(programs), "DATA": text}
    for name, part in parts.items():
        before, _, after = template.partition(f"/*{name}*/")
        template = before + part + after
    return template
