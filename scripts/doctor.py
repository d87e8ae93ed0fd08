"""Examines a run without training anything, and says what is odd and which page explains it.

    python scripts/doctor.py cti_demo
    python scripts/doctor.py exp --images 1000        # seeds and masks looked at (default: 300, spread over the list)

Examined are the losses (finite, falling), the label accuracy, the seeds (empty ones), the best threshold (at an end of
the thresholds), the classes (never predicted), labels against masks, over- and under-activation by the evaluation card,
versions and lists. What a run does not have is left out. Exit code 1 if anything is odd.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.data.dataset import LabelledImages
from common.data.lists import find_list
from common.data.seeds import read_seed, seed_path
from common.run.command import script_parser
from common.run.config import load_config
from common.run.errors import UserError, preview, run_script
from common.run.folder import CARD, MASK_SCORES, SEED_SCORES, RunFolder
from common.run.log import read_metrics
from common.run.progress import progress
from common.run.provenance import digest, versions
from common.score.card import read_card
from common.score.options import EvaluationConfig, shared_sections
from common.score.read import read_score

SHARE = 0.2  # of images, from which disagreement or emptiness is odd
ACCURACY = 0.5  # label accuracy: mean share of true labels among the highest logits
BALANCE = 3  # times that one kind of error may be as large as the other
TRAINING, DATA, EVALUATION = "docs/configuration.md", "docs/data.md", "docs/evaluation.md"


@dataclass(frozen=True)
class Finding:
    """A line of the examination.

    Attributes:
        odd: whether something is odd.
        page: the page that explains it.
    """

    subject: str
    text: str
    odd: bool = False
    page: str = ""

    def __str__(self) -> str:
        more = f"  → {self.page}" if self.odd and self.page else ""
        return f"  {'ODD' if self.odd else 'ok':<5}{self.subject:<22}{self.text}{more}"


def training(run: RunFolder) -> Iterator[Finding]:
    """Losses and label accuracy of a training."""
    lines = [line for line in read_metrics(run.metrics) if line.get("kind") == "train"]
    losses = [float(line["total"]) for line in lines if isinstance(line.get("total"), int | float)]
    if not losses:
        return
    infinite = sum(not math.isfinite(loss) for loss in losses)
    if infinite:
        yield Finding("loss", f"{infinite} of {len(losses)} values are not finite", True, TRAINING)
        return
    part = max(len(losses) // 5, 1)
    first, last = (float(np.mean(own)) for own in (losses[:part], losses[-part:]))
    fell = "falls" if last < first else "does not fall"
    yield Finding("loss", f"{fell}: {first:.4g} in the first fifth, {last:.4g} in the last", last >= first, TRAINING)
    for name in sorted({name for line in lines for name in line if name.startswith("accuracy")}):
        value = [float(line[name]) for line in lines if name in line][-1]
        text = f"{100 * value:.1f} % of the true labels are found at the end"
        yield Finding(name, text, not value >= ACCURACY, TRAINING)


def scores(run: RunFolder) -> Iterator[Finding]:
    """Thresholds, classes and errors of the run's evaluations."""
    for stem in (SEED_SCORES, MASK_SCORES):
        path = run.scores(stem)
        if not path.is_file():
            continue
        result = read_score(path, ["images", "list"])
        try:
            best = result["best"]
            ends = (result["thresholds"][0], result["thresholds"][-1]) if result.get("thresholds") else ()
            lost = [
                name
                for name, own in best["classes"].items()
                if own["recall"] == 0 and name not in best.get("absent", [])
            ]
            at = "" if best["threshold"] is None else f" at threshold {best['threshold']:.2f}"
            yield Finding(stem, f"{best['mIoU']:.2f} mIoU{at}, {result['images']} images of {result['list']}")
            if ends:
                edge = best["threshold"] in ends and ends[0] != ends[1]
                where = "at an end of" if edge else "inside"
                yield Finding("best threshold", f"{where} {ends[0]:.2f} to {ends[1]:.2f}", edge, EVALUATION)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(f"{path} is no result of evaluation.py ({type(error).__name__}: {error})") from error
        text = f"never right: {preview(lost)}" if lost else "each is predicted somewhere"
        yield Finding("classes", text, bool(lost), EVALUATION)
        for warning in result.get("warnings", []):
            yield Finding("evaluation", str(warning), True, EVALUATION)
        if (run.path / f"{stem}{CARD}").is_file():
            yield from errors(read_card(run.path, stem))


def errors(card: dict[str, Any]) -> Iterator[Finding]:
    """Over- against under-activation; nothing where no class is present."""
    means = card["points"][card["main"]]["means"]
    extra, missed = (means.get(name, {}).get("value") for name in ("extra", "missed"))
    if extra is None or missed is None:
        return
    more, less = max(extra, missed), min(extra, missed)
    odd = more > 10 and more > BALANCE * less
    text = f"extra {extra:.1f}, missed {missed:.1f} % of the union"
    if odd:
        text += ": they spread beyond objects" if extra > missed else ": they cover parts of objects"
    yield Finding("errors", text, odd, EVALUATION)


def images(run: RunFolder, config: EvaluationConfig, list_name: str, limit: int, threshold: float) -> Iterator[Finding]:
    """Seeds and labels of some images, spread evenly over the list.

    Args:
        threshold: of background, below which a seed is empty.
    """
    found = LabelledImages(config.data, list_name)
    chosen = np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int)).tolist()
    empty: list[str] = []
    missing: list[str] = []
    differing: list[str] = []
    masks = 0
    for index in progress(chosen, "images"):
        image_id = found.ids[index]
        path = seed_path(run.seeds, image_id)
        if path is None:
            missing.append(image_id)
        elif not any(float(cam.max(initial=0)) > threshold for cam in read_seed(path).values()):
            empty.append(image_id)
        if found.mask_path(image_id).is_file():
            masks += 1
            in_mask = {label - 1 for label in np.unique(found.load_mask(index)).tolist() if 0 < label < 255}
            if in_mask != set(np.flatnonzero(found.labels[index]).tolist()):
                differing.append(image_id)
    if run.seeds.is_dir():
        seeds = len(chosen) - len(missing)
        yield _share("seeds without a file", missing, len(chosen), 0, "docs/pipeline.md")
        if seeds:
            yield _share("empty seeds", empty, seeds, SHARE, EVALUATION)
    if masks:
        yield _share("labels ≠ masks", differing, masks, SHARE, DATA)


def _share(subject: str, offenders: Sequence[str], total: int, most: float, page: str) -> Finding:
    named = f": {preview(offenders, 3)}" if offenders else ""
    return Finding(subject, f"{len(offenders)} of {total} images{named}", len(offenders) > most * total, page)


def origin(config: EvaluationConfig, lists: Sequence[str]) -> Iterator[Finding]:
    """Versions, and the hashes of the lists: what has to be equal before two runs are compared."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    yield Finding("versions", found)
    for name in dict.fromkeys(lists):
        if name == "all":
            continue
        path = find_list(name, config.data.dataset, config.data.root)
        yield Finding("list", f"{name}: {path}, SHA-256 {digest(path)[:16]}")


def examine(run: RunFolder, limit: int) -> list[Finding]:
    """All findings about a run.

    Raises:
        UserError: a file of the run is damaged, or its data set is not there.
    """
    findings = list(training(run)) if run.metrics.is_file() else []
    findings += scores(run)
    if run.config.is_file():
        config = load_config(EvaluationConfig, None, shared_sections(run.config))
        path = run.scores(SEED_SCORES)
        result = read_score(path, ["list"]) if path.is_file() else {}
        if result.get("list"):
            findings += images(run, config, result["list"], limit, float(result["best"]["threshold"]))
            findings += origin(config, [result["list"]])
    if not findings:
        raise UserError(f"{run.path} has nothing to examine: no metrics.jsonl and no result of evaluation.py")
    return findings


def main() -> int:
    """Prints the findings; 1 if anything is odd."""
    args = arguments()
    run = RunFolder(args.name).existing()
    findings = examine(run, args.images)
    print(f"{run.path}:")
    print("\n".join(map(str, findings)))
    odd = sum(finding.odd for finding in findings)
    print(f"{odd} of {len(findings)} findings are odd" if odd else "nothing is odd")
    return 1 if odd else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="the run: experiment/NAME")
    parser.add_argument("--images", type=int, default=300, help="images to look at (default: %(default)s)")
    args = parser.parse_args()
    if args.images < 1:
        raise UserError(f"--images {args.images}: at least one image")
    return args


if __name__ == "__main__":
    run_script(main)
