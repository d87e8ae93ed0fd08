"""Everything about runs besides their images: settings, scores, classes, training, comparison."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.data.masks import voc_palette
from common.pipeline.recipe import RECIPES, Recipe
from common.pipeline.stages import read_state
from common.report.located import LocatedRun, located_comparison, located_facts
from common.report.pictures import small
from common.report.reference import series_of
from common.report.source import ScoredRun, Source
from common.run.config import read_yaml
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.folder import BOX_SCORES, CARD, RunFolder
from common.run.log import read_metrics
from common.score.compare import aligned, difference, group_of, read_run
from common.score.read import read_score

CONTEXT = ("step", "epoch", "kind", "steps")  # of a line of metrics.jsonl; everything else is a curve
LONGEST = 400  # points of a curve that the page draws
PICTURES = 10  # of a history


def run_facts(source: Source) -> dict[str, Any]:
    """A run's settings, main score, classes, pipeline and curves."""
    content = _configuration(source.run)
    facts: dict[str, Any] = {
        "title": source.title, "folder": str(source.run.path), "method": content.get("method", ""),
        "task": source.task, "list": source.list_name,
        "settings": {key: content.get(key) for key in ("data", "model", "train", "infer", "runtime") if key in content},
        "strip": pipeline_strip(source.run), "training": curves(source.run), "log": log_facts(source.run),
        "histories": histories(source.run, content), "references": published_curves(content),
    }  # fmt: skip
    if isinstance(source, ScoredRun):
        point = source.card["points"][source.point]
        facts |= {
            "images": source.score["images"], "point": source.point, "threshold": point.get("threshold"),
            "means": point["means"], "classes": class_rows(source), "confusion": point["confusion"],
            "pairs": confusions(source), "together": together(source),
            "curve": None if source.thresholds is None else source.score.get("mIoU"),
            "trivial": trivial(source.run), "published": published(str(facts["method"])),
            "warnings": source.score.get("warnings", []),
        }  # fmt: skip
    elif isinstance(source, LocatedRun):
        facts |= {**located_facts(source), "published": published(str(facts["method"]), of_boxes=True)}
    return facts


def class_rows(source: ScoredRun) -> list[dict[str, Any]]:
    """A row for each label: IoU with interval, precision, recall, the best threshold by the masks."""
    classes = source.card["points"][source.point]["classes"]
    oracle = source.card.get("oracle", {}).get("classes", {})
    rows = []
    for name in source.labels:
        own = classes[name]
        rows.append({"name": name, **own, "oracle": oracle.get(name, {}).get("threshold")})
    return rows


def together(source: ScoredRun) -> list[list[int]]:
    """The number of images that hold both of two labels, and in the diagonal those that hold one, (K, K)."""
    has = (source.counts.truth[0] > 0).astype(np.int64)  # N K
    return (has.T @ has).tolist()


def confusions(source: ScoredRun) -> list[dict[str, Any]]:
    """Pairs of classes by pixels of the one that are predicted as the other, the most confused first.

    ``share``: of the true class's pixels; ``together``: share of the true class's images that hold the other, too.
    """
    matrix = np.asarray(source.card["points"][source.point]["confusion"], dtype=np.int64)  # true, predicted
    has = source.counts.truth[0] > 0  # N K
    rows = []
    for truth in range(len(matrix)):
        total = int(matrix[truth].sum())
        for other in range(len(matrix)):
            if other != truth and total and matrix[truth, other]:
                both = (has[:, truth] & has[:, other]).sum() / max(has[:, truth].sum(), 1)
                rows.append({
                    "truth": truth, "predicted": other, "share": round(100 * int(matrix[truth, other]) / total, 2),
                    "together": round(100 * float(both), 1),
                })  # fmt: skip
    return sorted(rows, key=lambda row: -row["share"])[:60]


def colours(labels: Sequence[str]) -> list[list[int]]:
    """VOC's colours of the labels, and white for ignored pixels at place 255."""
    palette = voc_palette().astype(int)
    palette[255] = 224, 224, 192
    return [*palette[: len(labels)].tolist(), *palette[len(labels) :].tolist()]


def curves(run: RunFolder) -> list[dict[str, Any]]:
    """The run's numbers over steps: name, kind, and at most `LONGEST` points."""
    if not run.metrics.is_file():
        return []
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in read_metrics(run.metrics):
        for name, value in row.items():
            if name not in CONTEXT and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault((str(row.get("kind", "")), name), []).append((float(row["step"]), float(value)))
    made = []
    for (kind, name), points in found.items():
        every = math.ceil(len(points) / LONGEST)
        made.append({"kind": kind, "name": name, "points": points[::every]})
    return made


def histories(run: RunFolder, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pictures that a training made of its own state again and again, from the first to the last.

    PCSS's importance masks, and the images that DiG's diffusion model makes from noise: in the diffusion run's own
    folder, which the classifier's configuration names by a file.
    """
    weights = (content.get("diffusion") or {}).get("file")
    previews = Path(weights).parent.parent / run.previews.name if weights else run.previews
    found = []
    for title, when, folder in (
        ("frequency importance (bright: suppressed)", "after epoch", run.importance),
        ("images that the diffusion model makes from noise", "after step", previews),
    ):
        files = sorted(file for file in folder.glob("*.png") if file.stem.isdecimal())
        if files:
            chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), PICTURES)).round().astype(int)).tolist()
            shown = [{"name": f"{when} {int(files[index].stem)}", "picture": small(files[index])} for index in chosen]
            found.append({"title": title, "pictures": shown})
    return found


def published_curves(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The published training curves of a run's method on its data set and backbone; see `common.report.reference`."""
    files = {recipe.curves for recipe in _recipes(str(content.get("method", ""))) if recipe.curves}
    return [
        {"title": f"published: {title}", "curves": curves}
        for file in sorted(files)
        for title, curves in series_of(ROOT / file, content).items()
    ]


def log_facts(run: RunFolder) -> list[str]:
    """The first lines of the run's log, which tell images, device and weights, and its last line."""
    path = run.path / "log.txt"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [*lines[:4], *lines[-1:]] if len(lines) > 5 else lines


def pipeline_strip(run: RunFolder) -> list[dict[str, Any]]:
    """The stages of the pipelines that started from this run's seeds, each with its mIoU."""
    strips = []
    for path in sorted(run.path.glob("pipeline_*.json")):
        table = read_state(path).get("table", [])
        strips.append({"name": path.stem, "stages": [
            {"title": row["stage"], "list": row["list"], "mIoU": row["mIoU"]} for row in table
        ]})  # fmt: skip
    return strips


def trivial(run: RunFolder) -> dict[str, float]:
    """mIoU of the trivial predictions that were scored beside the run."""
    found = {}
    for path in sorted(run.path.glob("eval_trivial_*.json")):
        if path.name.endswith(CARD):
            continue
        found[path.stem.removeprefix("eval_trivial_").replace("_", " ")] = float(read_score(path)["best"]["mIoU"])
    return found


def published(method: str, of_boxes: bool = False) -> list[dict[str, Any]]:
    """Published numbers of a method, of boxes or of seeds and masks, from the recipes of its reproductions."""
    return [
        {"what": f"{recipe.title}: {result.what}", "value": result.published}
        for recipe in _recipes(method)
        for result in recipe.results
        if result.published is not None and (result.file == f"{BOX_SCORES}.json") == of_boxes
    ]


def _recipes(method: str) -> list[Recipe]:
    """The recipes of a method's published numbers."""
    paths = [path for path in sorted(RECIPES.glob("*.yaml")) if not path.stem.endswith("_demo")]
    recipes = [Recipe.read(path) for path in paths] if method else []
    return [recipe for recipe in recipes if recipe.title.split(" ")[0].rstrip(",") == method.split(" ")[0]]


def comparison(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Differences of each further run from the first, with intervals; empty for a single run or without masks."""
    located = [source for source in sources if isinstance(source, LocatedRun)]
    if located:
        return located_comparison(located)
    scored = [source for source in sources if isinstance(source, ScoredRun)]
    if len(scored) < 2 or len(scored) < len(sources):
        return []
    if any(source.labels != scored[0].labels for source in scored):
        raise UserError("the runs have different classes; compare runs of one data set")
    runs = aligned([read_run(source.title) for source in scored])
    first = group_of(runs[:1])
    rows = []
    for source, run in zip(scored[1:], runs[1:], strict=True):
        found = difference(group_of([run]), first)
        rows.append({
            "title": source.title,
            "means": {name: _finite(score) for name, score in found.items()},
        })  # fmt: skip
    return rows


def _configuration(run: RunFolder) -> dict[str, Any]:
    if not Path(run.config).is_file():
        return {}  # a run whose training was elsewhere
    return read_yaml(Path(run.config))


def _finite(score: Sequence[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in score]
