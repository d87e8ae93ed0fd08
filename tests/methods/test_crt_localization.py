"""CRT's localisation scores: every outcome by hand, and all percentages against a recount."""

import numpy as np
import pytest

from methods.crt.localization import OUTCOMES, PERCENTAGES, Located, judge, scores

OBJECT = (0, 0, 9, 9)  # 100 pixels, as both corners count


def located(box: tuple[int, ...], *objects: tuple[int, ...], label: int = 3, top: tuple[int, ...] = (3,)) -> Located:
    """One box for the first class, and far away boxes for the others."""
    others = [(200, 200, 210, 210)] * (len(top) - 1)
    return Located(np.array(top), np.array([box, *others]), label, np.array(box), np.array(objects or [OBJECT]))


@pytest.mark.parametrize(
    ("box", "objects", "outcome"),
    [
        ((0, 0, 9, 9), (), "right"),
        ((0, 0, 9, 5), (), "right"),  # IoU 0.6
        ((0, 0, 9, 4), (), "part"),  # IoU 0.5 is not above a half; the box lies within the object
        ((0, 0, 3, 3), (), "part"),
        ((0, 0, 19, 19), (), "more"),  # four times the object
        ((0, 3, 9, 22), (), "more"),  # 0.7 of the object, 0.35 of the box
        ((0, 4, 9, 22), (), "wrong"),  # 0.6 of the object
        ((6, 0, 13, 9), (), "wrong"),  # a half of the box is not above a half
        ((5, 0, 12, 9), (), "part"),  # 5 of its 8 columns lie within
        ((50, 50, 60, 60), (), "wrong"),
        ((0, 0, 29, 9), (OBJECT, (20, 0, 29, 9)), "multi"),  # both objects and what lies between
        ((7, 0, 22, 9), (OBJECT, (20, 0, 29, 9)), "wrong"),  # 0.3 of both is not above 0.3
        ((6, 0, 23, 9), (OBJECT, (20, 0, 29, 9)), "multi"),
        ((0, 0, 29, 9), (OBJECT, (100, 0, 109, 9)), "more"),  # only one of two
        ((0, 0, 3, 3), ((100, 0, 109, 9), OBJECT), "part"),  # of the object that it overlaps, not of the first
        ((20, 0, 29, 9), (OBJECT, (20, 0, 29, 9)), "right"),  # any object
    ],
)
def test_what_came_of_the_box_of_the_right_class(
    box: tuple[int, ...], objects: tuple[tuple[int, ...], ...], outcome: str
) -> None:
    """In the order in which the reference asks."""
    verdict = judge(located(box, *objects))
    assert verdict.outcome == outcome
    assert verdict.cls_top1 and verdict.loc_top1 == (outcome == "right")


def test_a_wrong_class_is_wrong_whatever_its_box() -> None:
    """The true class may still be among the five, with a box of its own; given the class, its box counts alone."""
    verdict = judge(located(OBJECT, top=(7, 3, 4, 5, 6)))
    assert verdict.outcome == "class" and (verdict.cls_top1, verdict.cls_top5) == (False, True)
    assert not verdict.loc_top1 and not verdict.loc_top5 and verdict.gt_known and verdict.iou == 1
    found = located((50, 50, 60, 60), top=(7, 3, 4, 5, 6))
    found.top_boxes[1] = OBJECT
    verdict = judge(found)
    assert verdict.loc_top5 and not verdict.loc_top1 and not verdict.gt_known
    verdict = judge(located(OBJECT, top=(7, 4)))
    assert not verdict.cls_top5 and not verdict.loc_top5 and verdict.gt_known


def test_an_iou_of_a_half_is_enough_given_the_class_only() -> None:
    """At least 0.5 there, above 0.5 for Loc@k (the reference's own difference)."""
    verdict = judge(located((0, 0, 9, 4)))
    assert verdict.iou == 0.5 and verdict.gt_known and not verdict.loc_top1


def recounted(found: list[Located]) -> dict[str, float]:
    """All percentages with plain Python numbers."""

    def parts(box: list[int], other: list[int]) -> tuple[float, float, float]:
        width, height = (min(box[k + 2], other[k + 2]) - max(box[k], other[k]) + 1 for k in (0, 1))
        common = width * height if width > 0 and height > 0 else 0
        own, theirs = ((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
        return common / (own + theirs - common), common / theirs, common / own

    counts = dict.fromkeys([*PERCENTAGES, *(f"top1_{name}" for name in OUTCOMES)], 0)
    for one in found:
        top, label, objects = one.top.tolist(), one.label, one.true_boxes.tolist()
        best = [max(parts(box, other)[0] for other in objects) for box in one.top_boxes.tolist()]
        counts["cls_top1"] += top[0] == label
        counts["cls_top5"] += label in top
        counts["loc_top1"] += top[0] == label and best[0] > 0.5
        counts["loc_top5"] += any(name == label and iou > 0.5 for name, iou in zip(top, best, strict=True))
        counts["gt_known"] += max(parts(one.known_box.tolist(), other)[0] for other in objects) >= 0.5
        of_first = [parts(one.top_boxes[0].tolist(), other) for other in objects]
        iou, iog, iob = max(of_first, key=lambda values: values[0])
        if top[0] != label:
            counts["top1_class"] += 1
        elif iou > 0.5:
            counts["top1_right"] += 1
        elif sum(values[1] > 0.3 for values in of_first) > 1:
            counts["top1_multi"] += 1
        elif iob > 0.5:
            counts["top1_part"] += 1
        elif iog >= 0.7:
            counts["top1_more"] += 1
        else:
            counts["top1_wrong"] += 1
    return {name: 100 * count / len(found) for name, count in counts.items()}


@pytest.mark.parametrize("objects", [1, 3])
def test_percentages_equal_a_recount(objects: int) -> None:
    """Random boxes of five of seven classes; every outcome occurs where there are several objects."""
    rng, found = np.random.default_rng(objects), []
    for _ in range(400):
        corners = rng.integers(0, 24, (6 + objects, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        top, label = rng.permutation(7)[:5], int(rng.integers(0, 7))
        if rng.random() < 0.6:
            label = int(top[0])
        hit = np.flatnonzero(top == label)
        known = boxes[hit[0]] if len(hit) else boxes[5]
        found.append(Located(top, boxes[:5], label, known, boxes[6:]))
    result = scores(judge(one) for one in found)
    assert result == pytest.approx(recounted(found), abs=1e-9)
    outcomes = {name: result[f"top1_{name}"] for name in OUTCOMES}
    assert sum(outcomes.values()) == pytest.approx(100) and outcomes["right"] == result["loc_top1"]
    assert outcomes["class"] == pytest.approx(100 - result["cls_top1"])
    assert all(share > 0 for name, share in outcomes.items() if objects > 1 or name != "multi")
    assert (outcomes["multi"] == 0) == (objects == 1)
