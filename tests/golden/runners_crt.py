"""Computes CRT's golden cases of networks and CAMs with the project's code."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.data.seeds import Seed, read_seed
from common.nets.attention import MapRequest
from common.nets.options import ResNetConfig, ViTConfig
from common.nets.tiles import cut_tiles, merge_tiles, padded_side, tile_grid
from common.score.counts import ConfusionCounts, first_argmax
from methods.crt.cams import crt_cams, scaled_size, view_cams
from methods.crt.config import CRTInferConfig, CRTModelConfig
from methods.crt.model import STRIDES, CNNBranch, DeiTBranch, tiled_deit
from tests.golden.harness import Case, Results, built, runner
from tests.golden.runners_eval import swept_voc


def deit(case: Case) -> DeiTBranch:
    """The DeiT that sees tiles, with the recipe's weights."""
    given = case.model["deit"]
    assert given["stride"] * 2 == given["tile"] and given["head"] == "conv3x3"
    of_deit = ViTConfig(given["arch"], img_size=given["tile"], drop_path=0.0)
    config = CRTModelConfig(deit=of_deit, passes=given["passes"])
    return built(lambda: tiled_deit(config, given["num_classes"]), case.entry["weights_seed"]).eval()


@runner("crt", "deit")
@torch.no_grad()
def deit_forward(case: Case) -> Results:
    """Tokens after every pass, attention, maps of the tiles and of the images."""
    model, x = deit(case), case.input("x")
    side = case.model["deit"]["tile"]
    grid, tiles = tile_grid(*x.shape[-2:], side), cut_tiles(x, side)
    tile_maps, rows = model.maps_with_attention(tiles)
    layers = [0.0] * model.depth
    tokens = [model.embed(tiles)]
    for number, block in enumerate(model.blocks):
        block.attn.register_forward_hook(lambda module, args, out, number=number: add_map(module, args[0], number))

    def add_map(module: torch.nn.Module, x: Tensor, number: int) -> None:
        layers[number] = layers[number] + module.forward(x, MapRequest())[1]

    for _ in range(model.passes):
        tokens.append(model.run_pass(tokens[-1]))
    encoded, cam = model.norm(tokens[-1]), merge_tiles(tile_maps, grid)
    torch.testing.assert_close(model.read_head(encoded), tile_maps)
    found = {
        "cam": cam, "logits": cam.mean((-2, -1)), "tile_grid": grid, "tile_cls": encoded[:, 0],
        "tile_patch": encoded[:, 1:], "cls_attn_row": F.pad(rows.flatten(2), (1, 0)),  # T B, 1, class token and patches
        "attn_layer_corner": torch.stack(layers), "pass_mean_abs": [float(x.abs().mean()) for x in tokens],
        "tile_map": tile_maps,
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("crt", "cam_pair")
def cam_pair(case: Case) -> Results:
    """CAMs of images of several sizes and their mirror images."""
    pairs, sizes = case.input("images"), case.params["sizes"]
    assert all(torch.equal(pair[0], pair[1].flip(-1)) for pair in pairs)
    results: Results = {}
    for size, view in zip(sizes, view_cams(deit(case), [pair[:1] for pair in pairs], tiles=5), strict=True):
        name = "{}x{}".format(*size)
        results |= {
            ("cam", name): view.cams[0],
            ("padded", name): [padded_side(n, case.model["deit"]["tile"]) for n in size],
        }
    return results


@runner("crt", "cnn")
@torch.no_grad()
def cnn_forward(case: Case) -> Results:
    """Stages and maps, and the CAM that the branch would give by itself."""
    given = case.model["cnn"]
    assert tuple(given["strides"]) == STRIDES
    model = built(
        lambda: CNNBranch(ResNetConfig(given["arch"]), given["num_classes"]), case.entry["weights_seed"],
        lambda name: name.replace("backbone.", "resnet50."),
    )  # fmt: skip
    stages = model.backbone(case.input("x"))[1:]
    cam, pair = model.classifier(stages[-1]), model(case.input("pair")).relu()
    found = {
        "cam": cam, "logits": cam.mean((-2, -1)), "pair_cam": pair[0] + pair[1].flip(-1),
        "stage_abs_mean": [float(stage.abs().mean()) for stage in stages],
        "stage_shapes": [tuple(stage.shape) for stage in stages],
    }  # fmt: skip
    return {(role, None): value for role, value in found.items()}


@runner("crt", "make_cam")
def make_cam(case: Case) -> Results:
    """From photos to seeds of both sizes."""
    config, model, labels = CRTInferConfig(scales=case.params["scales"]), deit(case), case.input("label")
    results: Results = {}
    for number, pixels in enumerate(case.input("images")):
        label = torch.as_tensor(labels[number])[None]
        (cams,) = crt_cams(model, [view[None] for view in config.transform()(Image.fromarray(pixels))], label, config)
        sizes = [scaled_size(pixels.shape[:2], scale) for scale in config.scales]
        found = {"keys": label[0].nonzero().flatten(), "cam": cams.strided, "high_res": cams.high_res}
        results |= {(role, number): value for role, value in {**found, "scale_imgs_hw": sizes}.items()}
    return results


@runner("crt", "eval_cam")
def eval_cam(case: Case) -> Results:
    """Confusions and scores of seeds in IRNet's own files, at each threshold."""
    images = [{name: case.make(recipe) for name, recipe in image.items()} for image in case.entry["inputs"]["images"]]
    images = [
        (read_as_irnet_writes(image["keys"], image["high_res"]),
         np.where(image["gt"] == case.params["ignore"], 255, image["gt"]).astype(np.uint8))
        for image in images
    ]  # fmt: skip
    thresholds, results = case.params["thresholds"], {}
    swept = swept_voc(images, thresholds)
    for threshold in thresholds:
        counts = ConfusionCounts(len(swept.classes) + 1)
        for seed, gt in images:
            scores = {0: np.full(gt.shape, threshold, np.float32), **{key + 1: cam for key, cam in seed.items()}}
            counts.add(first_argmax(scores, counts.num_labels, gt.shape), gt)
        confusion = counts.matrix[:, :-1]
        seen = confusion.any(axis=0) | confusion.any(axis=1)
        iou = swept.scores.iou[swept.thresholds.tolist().index(threshold)] / 100
        np.testing.assert_allclose(iou, counts.scores().iou / 100)  # the one pass over all thresholds
        iou, size = np.where(seen, iou, np.nan), np.flatnonzero(seen).max() + 1
        found = {"confusion": confusion[:size, :size], "iou": iou[:size], "miou": np.nanmean(iou)}
        results |= {(role, str(threshold)): value for role, value in found.items()}
    return results


def read_as_irnet_writes(keys: np.ndarray, high_res: np.ndarray) -> Seed:
    """A seed that went through a file of IRNet's."""
    strided = torch.from_numpy(np.ascontiguousarray(high_res[:, ::4, ::4]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, {"keys": torch.from_numpy(keys), "cam": strided, "high_res": high_res})
        return read_seed(path)
