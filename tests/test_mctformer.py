"""MCTformer-V2: names and shapes of the checkpoints, position embeddings, starting from ImageNet, maps."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets.mctformer import MCTformer
from common.nets.options import SEED_MAPS, ViTConfig
from common.run.errors import UserError
from methods.pcss.model import PCSS

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ViTConfig(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, drop_path=0.0)
CLASSES, GRID = 3, 4


@pytest.fixture
def model() -> MCTformer:
    """A seeded network with weights of one size, whose maps differ."""
    torch.manual_seed(0)
    model = MCTformer(SMALL, CLASSES)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def imagenet(size: int = SMALL.img_size, **others: Tensor) -> dict[str, Tensor]:
    """A checkpoint of a plain ViT of this kind for 10 classes, all of its numbers random."""
    torch.manual_seed(1)
    vit = timm.models.VisionTransformer(size, 8, embed_dim=32, depth=3, num_heads=2, num_classes=10)
    return {name: torch.randn_like(value) for name, value in vit.state_dict().items()} | others


# --- names


@pytest.mark.parametrize("classes", [20, 80])
def test_checkpoints_have_the_published_names_and_shapes(classes: int) -> None:
    """Those of timm's DeiT-S: 152 tensors, four of which have another shape."""
    with torch.device("meta"):
        ours = PCSS(ViTConfig(), classes).state_dict()
        theirs = timm.create_model("deit_small_patch16_224").state_dict()
    changed = {
        "cls_token": (1, classes, 384), "pos_embed": (1, classes + 196, 384), "head.weight": (classes, 384, 3, 3),
        "head.bias": (classes,),
    }  # fmt: skip
    assert len(ours) == 152
    expected = {name: tuple(value.shape) for name, value in theirs.items()} | changed
    assert {name: tuple(value.shape) for name, value in ours.items()} == expected


def test_the_unused_norm_stays_as_it_is(model: MCTformer) -> None:
    """It is in the state dict and cannot be trained; the output does not depend on it; everything else is trained."""
    assert {name for name, value in model.named_parameters() if not value.requires_grad} == {"norm.weight", "norm.bias"}
    assert {"norm.weight", "norm.bias"} <= model.state_dict().keys()
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    (out.cls.sum() + out.pcls.sum() + out.rcams.sum()).backward()
    assert {name for name, value in model.named_parameters() if value.grad is None} == {"norm.weight", "norm.bias"}
    with torch.no_grad():
        model.norm.weight.fill_(7.0)
    assert torch.equal(model(images).rcams, out.rcams)


# --- position embeddings


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 37), (32, 39), (38, 33), (48, 48), (16, 40), (100, 9)])
def test_position_embeddings(model: MCTformer, height: int, width: int) -> None:
    """Stored ones for square images of the training grid; else resized by stated factors; never those of classes."""
    found, stored = model.positions(height, width)[0], model.pos_embed[0]
    h, w = height // 8, width // 8
    assert found.shape == (CLASSES + h * w, 32) and torch.equal(found[:CLASSES], stored[:CLASSES])
    if height == width and h == GRID:
        assert torch.equal(found, stored)
        return
    grid = stored[CLASSES:].T.view(1, 32, GRID, GRID)
    # The sampling points follow the factor that is stated, (h + 0.1) / 4, not the size that comes out.
    expected = F.interpolate(grid, scale_factor=((h + 0.1) / GRID, (w + 0.1) / GRID), mode="bicubic")
    torch.testing.assert_close(found[CLASSES:], expected[0].flatten(1).T)
    if (h, w) == (GRID, GRID):
        assert not torch.equal(found, stored)


def test_an_oblong_image_of_the_native_grid_is_resampled() -> None:
    """At full size: 224 x 230 pixels have 14 x 14 patches, too."""
    model = PCSS(ViTConfig(depth=1), 20)
    assert torch.equal(model.positions(224, 224), model.pos_embed) and torch.equal(
        model.positions(230, 230), model.pos_embed
    )
    resampled = model.positions(224, 230)
    assert resampled.shape == model.pos_embed.shape and torch.equal(resampled[:, :20], model.pos_embed[:, :20])
    assert 0 < (resampled - model.pos_embed).abs().max() < 0.05


# --- starting from ImageNet


def test_the_class_token_is_copied_for_every_class(model: MCTformer) -> None:
    """And its position; blocks and norm are loaded, the head keeps its random weights."""
    state, head = imagenet(), model.head.weight.clone()
    coverage = model.load_imagenet(state)
    for index in range(CLASSES):
        assert torch.equal(model.cls_token[0, index], state["cls_token"][0, 0])
        assert torch.equal(model.pos_embed[0, index], state["pos_embed"][0, 0])
    assert torch.equal(model.pos_embed[0, CLASSES:], state["pos_embed"][0, 1:])
    for name in ("blocks.2.attn.qkv.weight", "patch_embed.proj.bias", "norm.weight"):
        assert torch.equal(model.state_dict()[name], state[name])
    assert torch.equal(model.head.weight, head)
    assert set(coverage.missing) == {"head.weight", "head.bias"} and not coverage.unexpected + coverage.wrong_shape


def test_positions_of_another_grid_are_resized(model: MCTformer) -> None:
    """Bicubic, to the grid of the training images."""
    state = imagenet(size=56)
    model.load_imagenet(state)
    grid = state["pos_embed"][0, 1:].T.view(1, 32, 7, 7)
    expected = F.interpolate(grid, size=(GRID, GRID), mode="bicubic")
    torch.testing.assert_close(model.pos_embed[0, CLASSES:], expected[0].flatten(1).T)
    assert torch.equal(model.pos_embed[0, 0], state["pos_embed"][0, 0])


@pytest.mark.parametrize("wrong", ["distilled", "no class token", "no positions", "another width"])
def test_unsuitable_checkpoints_are_refused(model: MCTformer, wrong: str) -> None:
    """A distilled DeiT has two tokens; the message tells which kind is needed. The network is left as it was."""
    state, before = imagenet(), model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    if wrong == "distilled":
        state |= {"dist_token": torch.zeros(1, 1, 32), "pos_embed": torch.zeros(1, 2 + GRID**2, 32)}
    elif wrong == "no class token":
        del state["cls_token"]
    elif wrong == "no positions":
        del state["pos_embed"]
    else:
        state = {name: value.repeat_interleave(2, -1) for name, value in state.items()}
    message = "ImageNet checkpoint does not fit" if wrong == "another width" else "an undistilled DeiT or ViT is needed"
    with pytest.raises(UserError, match=message):
        model.load_imagenet(state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- outputs


def test_logits_alone_are_those_of_a_whole_pass(model: MCTformer) -> None:
    """Means of the class tokens over their width, and of the score map over its pixels, before the ReLU."""
    images = torch.randn(2, 3, 32, 40)
    out, (cls, pcls) = model(images), model.logits(images)
    assert cls.shape == pcls.shape == (2, CLASSES)
    torch.testing.assert_close(cls, out.cls, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pcls, out.pcls, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out.pcls, out.cams.mean((-2, -1)), atol=1e-3)


@pytest.mark.parametrize("cls", [MCTformer, PCSS])
def test_seed_maps_are_those_of_a_whole_pass(model: MCTformer, cls: type) -> None:
    """All kinds, at another size too; as attention summed over layers gives them, or (PCSS) the class rows' mean."""
    network = cls(SMALL, CLASSES).eval()
    network.load_state_dict(model.state_dict())
    for size in ((32, 32), (40, 24)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            out, tokens = network(images), network.embed(images)[0]
            maps = []
            for block in network.blocks:
                x = block.norm1(tokens)
                q, k, _ = block.attn.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
                maps.append((q @ k.transpose(-2, -1) / math.sqrt(16)).softmax(-1).mean(1))
                tokens = block(tokens)[0]
            total = sum(maps)
            weight = 1 / 3 if cls is PCSS else 1.0
            fused = weight * total[:, :CLASSES, CLASSES:].view_as(out.cams) * out.cams
            refined = torch.einsum("bij,bcj->bci", total[:, CLASSES:, CLASSES:], fused.flatten(2)).view_as(fused)
        expected = {"rcams": refined, "fcams": fused, "cams": out.cams}
        assert out.cams.shape == (2, CLASSES, size[0] // 8, size[1] // 8) and expected.keys() == set(SEED_MAPS)
        for kind, value in expected.items():
            torch.testing.assert_close(getattr(out, kind), value, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(network.foreground_maps(kind)(images).cams, value, rtol=1e-4, atol=1e-5)
