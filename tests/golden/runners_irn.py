"""Computes IRN's golden cases with the project's code."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.crf.options import CRFConfig
from common.data.transforms import eval_transform
from common.masks.pairs import Direction, pair_labels, window
from common.score.counts import ConfusionCounts
from methods.irn.config import IRNModelConfig, LabelConfig, LossConfig, WalkConfig
from methods.irn.labels import cut, ir_label, label_crf
from methods.irn.losses import IRNStep, affinities
from methods.irn.model import IRN, STRIDES
from methods.irn.paths import pair_displacements, path_cells, path_directions, path_maximum
from methods.irn.views import reduced
from methods.irn.walk import boundaries, enlarged, label_map, walked
from tests.golden.harness import Case, Results, built, runner


@functools.lru_cache(maxsize=1)
def filled(seed: int) -> IRN:
    """The network with the recipe's weights; not to be changed."""
    return built(lambda: IRN(IRNModelConfig("resnet50")), seed).eval()


def network(case: Case) -> IRN:
    """The network of a case."""
    assert (case.model["arch"], tuple(case.model["strides"])) == ("resnet50_irn", STRIDES)
    return filled(case.entry["weights_seed"])


def images_of(case: Case) -> list[dict[str, np.ndarray]]:
    """What a case says of each of its images, by name."""
    images = case.entry["inputs"]["images"]
    return [{name: case.make(recipe) for name, recipe in image.items()} for image in images]


@runner("irn", "paths")
def paths(case: Case) -> Results:
    """Directions, paths and all indices, for each radius."""
    results: Results = {}
    for of_case in case.params["cases"]:
        radius, (height, width) = of_case["radius"], of_case["size"]
        directions = path_directions(radius)
        cells = torch.arange(height * width).view(height, width)
        lengths = [len(path_cells(direction)) for direction in directions]
        indices = [
            torch.stack([window(cells, radius, cell).flatten() for cell in path_cells(direction)])
            for direction in directions
        ]  # each L P
        groups = [torch.stack([index for index in indices if len(index) == length]) for length in sorted(set(lengths))]
        found = {
            "dst": np.array(directions),
            "group_shapes": np.array([(len(group), group.shape[1], 2) for group in groups]),
            "paths_flat": np.concatenate([path_cells(direction) for direction in directions]),
            "src": window(cells, radius).flatten(),
            "dst_idx": torch.stack([window(cells, radius, direction).flatten() for direction in directions]),
            "idx_flat": torch.cat([group.flatten() for group in groups]),
            "idx_shapes": np.array([group.shape for group in groups]),
            "idx_sums": torch.stack([group.sum() for group in groups]),
        }
        results |= {(role, radius): value for role, value in found.items()}
    return results


@runner("irn", "losses")
def losses(case: Case) -> Results:
    """Affinity labels, network, all losses and the gradient."""
    model, x, radius = network(case).train(), case.input("x"), case.params["radius"]
    labels = torch.from_numpy(np.stack([reduced(label) for label in case.input("label")]))
    directions = path_directions(radius)
    pairs = [label.flatten(2) for label in pair_labels(labels, directions, radius)]
    with torch.no_grad():
        edge, displacement = model(x)
        affinity = affinities(edge, directions, radius).flatten(2)
        moved = pair_displacements(displacement, directions, radius).flatten(3)
    model.zero_grad()
    terms = IRNStep(model, LossConfig(radius))(x, labels)
    terms["total"].backward()
    named = dict(model.named_parameters())
    gradients = [named[str(name)].grad for name in case.stored["grad_names"]]
    found = {
        "reduced": labels, "edge_logit": edge, "dp": displacement, "aff": affinity, "pair_disp": moved,
        "aff_label_shape": np.array(pairs[0].shape),
        **{
            name: np.packbits(label.numpy().flatten())
            for name, label in zip(("bg_pos", "fg_pos", "neg"), pairs, strict=True)
        },
        "bg_pos_aff_loss": terms["aff_bg"], "fg_pos_aff_loss": terms["aff_fg"],
        "pos_aff_loss": (terms["aff_bg"] + terms["aff_fg"]) / 2, "neg_aff_loss": terms["aff_neg"],
        "dp_fg_loss": terms["dp_fg"], "dp_bg_loss": terms["dp_bg"], "total": terms["total"],
        "grad_norms": np.array([np.nan if gradient is None else float(gradient.norm()) for gradient in gradients]),
    }  # fmt: skip
    model.zero_grad()
    model.eval()
    return {(role, None): value for role, value in found.items()}


@runner("irn", "edge")
def edge(case: Case) -> Results:
    """Boundaries of an image and its mirror image as one, and the displacements of the image alone."""
    model, x, canvas = network(case), case.input("x")[:1], case.params["pad_to"]
    found = boundaries(model.edge, x, canvas)
    height, width = found.shape[-2:]
    padded = F.pad(x, (0, canvas - x.shape[-1], 0, canvas - x.shape[-2]))
    with torch.no_grad():
        displacement = model.displacement(padded)[0, :, :height, :width]
    return {("edge", None): found, ("dp", None): displacement}


@runner("irn", "walk")
def walk(case: Case) -> Results:
    """Affinities, the dense matrix that the walk stands for, and its result for three lengths."""
    params, radius = case.params, case.params["radius"]
    given, cams = torch.from_numpy(case.input("edge"))[0], torch.from_numpy(case.input("cam"))
    directions, (height, width) = path_directions(radius), given.shape
    padded = F.pad(given, (radius, radius, 0, radius), value=1.0)
    sparse = 1 - path_maximum(padded[None], directions, radius)[0]  # D h' w'
    dense = dense_affinity(sparse, directions, radius, padded.shape)
    inside = F.pad(torch.ones(height, width), (radius, radius, 0, radius)).flatten() > 0
    dense = dense[inside][:, inside]
    weights = dense ** params["beta"]
    found = {
        "sparse_aff": sparse.flatten(1), "dense_aff": dense, "trans0": weights / weights.sum(0),
        "dense_symmetric": torch.equal(dense, dense.T), "diag": dense.diagonal()[:5],
    }  # fmt: skip
    results: Results = {(role, None): value for role, value in found.items()}
    for rounds in params["exp_times"]:
        results["rw", rounds] = walked(given, cams, WalkConfig(radius, params["beta"], rounds))
    return results


def dense_affinity(sparse: Tensor, directions: Sequence[Direction], radius: int, size: tuple[int, int]) -> Tensor:
    """The symmetric matrix (hw, hw), 1 on its diagonal, of affinities (D, h', w')."""
    cells = torch.arange(size[0] * size[1]).view(*size)
    dense, source = torch.eye(cells.numel(), dtype=sparse.dtype), window(cells, radius).flatten()
    for direction, values in zip(directions, sparse, strict=True):
        other = window(cells, radius, direction).flatten()
        dense[source, other] = dense[other, source] = values.flatten()
    return dense


@runner("irn", "sem_seg")
def sem_seg(case: Case) -> Results:
    """Masks of two images, network and all."""
    params, model, results = case.params, network(case), {}
    assert params["memory_format"] == "channels_last"  # selects another kernel of group norm on CPUs
    config = WalkConfig(params["radius"], params["beta"], params["exp_times"], params["sem_seg_bg_thres"])
    for number, of_image in enumerate(images_of(case)):
        pixels, keys, cams = (of_image[name] for name in ("image", "keys", "cam"))
        image = eval_transform(Image.fromarray(pixels))[None].clone(memory_format=torch.channels_last)
        found = boundaries(model.edge, image, params["pad_to"])
        scores = walked(found[0], torch.from_numpy(cams), config)
        large = enlarged(scores, pixels.shape[:2])
        labels = label_map(large, keys.tolist(), config.background)
        outputs = {"edge": found, "rw": scores, "rw_up": large, "sem_seg": labels}
        results |= {(role, number): value for role, value in outputs.items()}
    return results


@runner("irn", "crf")
def crf(case: Case) -> Results:
    """Both cuts of two seeds, before and after the CRF, and the labels made of them."""
    params, results = case.params, {}
    given = params["crf"]
    config = LabelConfig(
        fg_threshold=params["conf_fg_thres"], bg_threshold=params["conf_bg_thres"], certainty=given["gt_prob"],
        crf=CRFConfig(
            iterations=given["iterations"], gaussian_sxy=given["gaussian"]["sxy"],
            gaussian_compat=given["gaussian"]["compat"], bilateral_sxy=given["bilateral"]["sxy"],
            bilateral_srgb=given["bilateral"]["srgb"], bilateral_compat=given["bilateral"]["compat"],
        ),
    )  # fmt: skip
    for number, of_image in enumerate(images_of(case)):
        image, keys, maps = (of_image[name] for name in ("image", "keys", "high_res"))
        strict, loose = cut(maps, config.fg_threshold), cut(maps, config.bg_threshold)
        outputs = {
            "fg_argmax": strict, "bg_argmax": loose,
            "fg_crf": label_crf(image, strict, len(keys) + 1, config),
            "bg_crf": label_crf(image, loose, len(keys) + 1, config),
            "ir_label": ir_label(image, dict(zip(keys.tolist(), maps, strict=True)), config),
        }  # fmt: skip
        results |= {(role, number): value for role, value in outputs.items()}
    return results


@runner("irn", "eval")
def evaluation(case: Case) -> Results:
    """Confusion and scores; the reference leaves labels out of the mean that are neither there nor predicted."""
    params = case.params
    counts = ConfusionCounts(params["num_classes"])
    for of_image in images_of(case):
        prediction, truth = of_image["pred"], of_image["gt"]
        prediction = np.where(prediction == params["pred_ignore_to_background"], 0, prediction)
        counts.add(prediction, np.where(truth == params["ignore"], 255, truth).astype(np.uint8))
    matrix = counts.matrix[:, :-1]
    truth, predicted = matrix.sum(1), matrix.sum(0)
    union = np.where(truth + predicted > 0, truth + predicted - matrix.diagonal(), np.nan)
    iou = np.where(np.isnan(union), np.nan, counts.scores().iou / 100)
    found = {
        "confusion": matrix, "iou_f64": iou, "miou_f64": np.nanmean(iou), "fp_f64": 1 - truth / union,
        "fn_f64": 1 - predicted / union,
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}
