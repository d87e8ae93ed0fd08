"""Faithfulness of seeds without any mask: deletion and insertion (Petsiuk et al., BMVC 2018, section 3.2).

Pixels are ordered by a class's map. Deletion takes the highest ones out of the image, step by step, and follows the
class's probability: the sooner it falls, the smaller the area under the curve, the better the map shows the parts that
the network uses. Insertion puts them into an empty image: here a larger area is better. Empty is the mean colour, 0
after normalisation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.dataset import LabelledImages
from common.data.whole import image_batches
from common.run.device import Runtime
from common.run.errors import UserError
from common.score.bootstrap import Interval, draws, interval
from common.seeds.infer import MapsOf
from common.seeds.options import InferConfig

STEPS = 20
CURVES = ("deletion", "insertion")


@torch.inference_mode()
def faithfulness_areas(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, maps: Tensor, classes: Tensor, steps: int = STEPS
) -> Tensor:
    """Areas under both curves of every class of an image, by the trapezoidal rule.

    Args:
        logits_of: maps images (b, 3, H, W) to class logits (b, C).
        image: (3, H, W), normalised.
        maps: (n, H, W), of the classes.
        classes: indices (n,).

    Returns:
        Of probabilities, 0 to 1: float64 (n, 2), deletion first.
    """
    areas = []
    for values, label in zip(maps, classes.tolist(), strict=True):
        order = values.flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        count = (torch.arange(steps + 1, device=order.device) * len(order)) // steps
        chosen = (rank[None] < count[:, None]).unflatten(1, values.shape)[:, None]  # steps+1 1 H W
        curves = [logits_of(image * kept)[:, label].float().sigmoid().double() for kept in (~chosen, chosen)]
        areas.append(torch.stack([torch.trapezoid(curve) / steps for curve in curves]))
    return torch.stack(areas).cpu() if areas else torch.zeros(0, len(CURVES), dtype=torch.float64)


def score_faithfulness(
    maps_of: MapsOf, logits_of: Callable[[Tensor], Tensor], images: LabelledImages, infer: InferConfig, runtime: Runtime
) -> dict[str, Any]:
    """Means of both areas over the pairs of image and labelled class, with intervals over images, in percent.

    Collective: every process calls it and gets the same result.

    Raises:
        UserError: no image has a label.
    """
    found: list[tuple[int, np.ndarray]] = []
    batches = image_batches(
        images, infer.batch_size, infer.num_workers, runtime, lambda image_id: False, "faithfulness", infer.transform()
    )
    for indices, pixels in batches:
        labels = torch.from_numpy(images.labels[indices])
        with runtime.autocast():
            for index, image, maps, label in zip(indices, pixels, maps_of(pixels, labels).maps, labels, strict=True):
                areas = faithfulness_areas(logits_of, image, maps, label.nonzero().flatten())
                found.append((index, areas.numpy()))
    everyone = sorted((part for own in runtime.processes.gather_objects(found) for part in own), key=lambda own: own[0])
    sums = np.array([[*areas.sum(axis=0), len(areas)] for _, areas in everyone]).reshape(-1, len(CURVES) + 1)
    if not sums[:, -1].any():
        raise UserError(f"no image of {images.list_name!r} has a label: there is no map to examine")
    drawn = np.concatenate([weights @ sums for weights in draws(len(sums))])
    drawn = drawn[drawn[:, -1] > 0]
    scores = {
        name: interval(100 * sums[:, place].sum() / sums[:, -1].sum(), 100 * drawn[:, place] / drawn[:, -1])
        for place, name in enumerate(CURVES)
    }
    return {
        "list": images.list_name, "images": len(sums), "maps": int(sums[:, -1].sum()), "steps": STEPS,
        "unit": "percent",
        **{name: {"value": score.value, "interval": [score.low, score.high]} for name, score in scores.items()},
    }  # fmt: skip


def faithfulness_line(result: dict[str, Any]) -> str:
    """The result as a line of text."""
    areas = (f"{name} {Interval(result[name]['value'], *result[name]['interval'])}" for name in CURVES)
    return f"{result['maps']} maps of {result['images']} images of {result['list']!r}: area under {', '.join(areas)} %"
