"""Puts the facts, pictures, style and program of a report into one HTML file."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.report import facts, pictures
from common.report.packed import ENCODING, Packed
from common.report.reference import read_reference
from common.report.source import Source
from common.run.errors import UserError
from common.run.progress import progress

ASSETS = Path(__file__).parent / "assets"
PROGRAMS = (  # parts of one program, in this order
    "page.js", "pictures.js", "paint.js", "gallery.js", "viewer.js", "tools.js", "sections.js", "boxes.js", "start.js",
)  # fmt: skip
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
    if len({source.task == "box" for source in sources}) > 1:
        raise UserError("boxes and masks cannot be compared; name evaluations of one kind")
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
            {"id": image_id, "width": width, "height": height, "scores": list(scores)}
            for image_id, (height, width), *scores in zip(
                ids, (first.file(image_id).size() for image_id in ids),
                *(source.image_scores(ids) for source in sources), strict=True,
            )
        ],
        "total": len(first.ids),
    }  # fmt: skip


def chosen(source: Source, count: int) -> list[str]:
    """Ids of the images to show: two fifths with the lowest IoU, one fifth with the highest, the others spread evenly.

    Without masks all are spread evenly.
    """
    every = source.ids
    if count >= len(every):
        return every
    picked: dict[str, None] = {}
    scores = source.image_scores(every)
    if "iou" in scores[0]:
        order = np.argsort([row["iou"] for row in scores], kind="stable")
        low = 2 * count // 5
        high = count // 5
        picked |= dict.fromkeys([every[index] for index in [*order[:low], *order[len(order) - high :]]])
    rest = [image_id for image_id in every if image_id not in picked]
    for index in np.linspace(0, len(rest) - 1, max(count - len(picked), 0)).round().astype(int).tolist():
        picked[rest[index]] = None
    return [image_id for image_id in every if image_id in picked]


class Images:
    """The pictures of single images, made when they are asked for."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)

    def picture(self, image_id: str) -> dict[str, Any]:
        """Photo, truth if there is one, and the predictions of all runs; pictures are bytes.

        Raises:
            UserError: a file is missing or damaged.
        """
        first = self.sources[0]
        photo = first.file(image_id).read()
        shape = photo.height, photo.width
        return {
            "photo": pictures.photo(photo), **first.truth(image_id, shape),
            "runs": [source.entry(image_id, shape) for source in self.sources],
        }  # fmt: skip


def with_pictures(data: dict[str, Any], images: Images) -> dict[str, Any]:
    """The data with all pictures in it."""

    def entries() -> Iterator[dict[str, Any]]:
        for entry in progress(data["images"], "pictures"):
            yield entry | images.picture(entry["id"])

    return {**data, "images": list(entries())}


def page(data: dict[str, Any]) -> bytes:
    """The HTML of the page; nothing in it asks for anything outside the file.

    Args:
        data: pictures in it are bytes.
    """
    packed = Packed()
    # Beyond ASCII all is escaped. In a script element only "<" can end it or begin a comment.
    text = json.dumps(data, default=packed.add, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template, style, *programs = (
        (ASSETS / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", *PROGRAMS)
    )
    program = re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], "\n".join(programs))
    parts = {
        "ENCODING": ENCODING.encode(), "STYLE": style.encode("ascii"), "PROGRAM": program.encode("ascii"),
        "DATA": text.encode("ascii"), "PICTURES": packed.content(),
    }  # fmt: skip
    html = template.encode("ascii", "xmlcharrefreplace")
    for name, part in parts.items():
        before, _, after = html.partition(f"/*{name}*/".encode())
        html = before + part + after
    return html
