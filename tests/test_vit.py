"""The backbone: attention maps, their variants, timm's numbers, position embeddings, sizes."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from common.nets import attention as attention_module
from common.nets.attention import MapRequest
from common.nets.layers import Attention, DropPath
from common.nets.options import ViTConfig
from common.nets.vit import ViTBackbone, resize_position_grid
from common.run.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}


@pytest.fixture
def attention() -> Attention:
    """Seeded attention of 4 heads."""
    torch.manual_seed(0)
    return Attention(32, 4)


def explicit(module: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and head-averaged attention, written out head by head."""
    parts = module.qkv(x).chunk(3, dim=-1)
    heads, maps = [], []
    for head in range(4):
        q, k, v = (part[..., 8 * head : 8 * head + 8] for part in parts)
        weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        heads.append(weights @ v)
        maps.append(weights)
    return module.proj(torch.cat(heads, -1)), torch.stack(maps).mean(0)


@pytest.mark.parametrize("rows", [None, 0, 1, 5, 21])
@pytest.mark.parametrize("is_trained", [True, False])
def test_maps_are_the_heads_mean_softmax(attention: Attention, rows: int | None, is_trained: bool) -> None:
    """All rows or the first ones, with the path for training and the one without gradients."""
    x = torch.randn(2, 21, 32)
    with torch.set_grad_enabled(is_trained):
        tokens, weights = attention(x, MapRequest(rows))
        expected_tokens, expected = explicit(attention, x)
    torch.testing.assert_close(tokens, expected_tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, expected[:, :rows], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strip", [attention_module.STRIP, 2 * 4 * 21 * 8])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_maps_are_added_up_over_layers(
    attention: Attention, monkeypatch: pytest.MonkeyPatch, strip: int, precision: torch.dtype, tolerance: float
) -> None:
    """Two images, all rows at once or in strips of 8, 8 and 5 rows, heads that are less precise than their sum."""
    monkeypatch.setattr(attention_module, "STRIP", strip)
    x = torch.randn(2, 21, 32)
    total = torch.ones(2, 21, 21)
    with torch.inference_mode():
        expected_tokens, expected = explicit(attention, x)
        for count in (1, 2):
            tokens, weights = attention.to(precision)(x.to(precision), MapRequest(into=total))
            assert weights is None
            torch.testing.assert_close(total, 1 + count * expected, rtol=0, atol=count * tolerance)
            torch.testing.assert_close(tokens.float(), expected_tokens, rtol=0, atol=tolerance)


def test_what_is_requested_does_not_change_the_tokens(attention: Attention) -> None:
    """Values and gradients, whichever maps are asked for."""
    results = []
    for request in (None, MapRequest(3), MapRequest()):
        x = torch.randn(2, 21, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        tokens, weights = attention(x, request)
        assert (weights is None) == (request is None)
        results.append((tokens, *torch.autograd.grad(tokens.square().sum(), [x, attention.qkv.weight])))
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_maps(attention: Attention) -> None:
    """The derivative of a map is that of the written-out one."""
    x = torch.randn(2, 21, 32)
    wanted = torch.randn(2, 21, 21)
    for rows in (None, 3):
        gradients = [
            torch.autograd.grad((weights[:, :rows] * wanted[:, :rows]).sum(), attention.qkv.weight)[0]
            for weights in (attention(x, MapRequest(rows))[1], explicit(attention, x)[1])
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_blocks_equal_timms() -> None:
    """With timm's weights under timm's names, one class token: the patch embedding's and every block's output."""
    torch.manual_seed(0)
    theirs = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    for parameter in theirs.parameters():  # timm's initial biases are zero, which would hide a misplaced one
        torch.nn.init.normal_(parameter, std=0.05)
    ours = ViTBackbone(ViTConfig(arch="deit_tiny_patch16_224")).eval()
    state = {name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()}
    assert state.keys() == ours.state_dict().keys()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        patches = ours.embed_patches(images).flatten(2).transpose(1, 2)
        torch.testing.assert_close(patches, theirs.patch_embed(images))
        mine = expected = torch.cat([theirs.cls_token.expand(2, -1, -1), patches], 1) + theirs.pos_embed
        for index, (block, reference) in enumerate(zip(ours.blocks, theirs.blocks, strict=True)):
            mine = block(mine, MapRequest() if index % 3 == 1 else MapRequest(1) if index % 3 else None)[0]
            expected = reference(expected)
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_position_grid_is_resized_without_antialiasing() -> None:
    """The same grid is returned unchanged; another is what `F.interpolate` makes of it, row-major."""
    embedding = torch.randn(1, 14 * 14, 6)
    assert resize_position_grid(embedding, 14, 14) is embedding
    grid = embedding.view(14, 14, 6).permute(2, 0, 1)[None]
    for height, width in ((7, 10), (20, 3), (14, 15), (61, 14)):
        expected = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
        assert torch.equal(resize_position_grid(embedding, height, width)[0].view(height, width, 6), expected)
    identity = F.interpolate(grid, size=(14, 14), mode="bicubic", align_corners=False)
    assert torch.equal(identity, grid)
    assert resize_position_grid(embedding.bfloat16(), 7, 10).dtype == torch.bfloat16


@pytest.mark.parametrize("patch", [4, 7, 16])
@pytest.mark.parametrize("size", [(33, 50), (16, 16), (100, 17)])
def test_any_patch_and_image_size(patch: int, size: tuple[int, int]) -> None:
    """A remainder at the right and bottom is dropped."""
    model = ViTBackbone(ViTConfig(**{**SMALL, "patch_size": patch, "img_size": 2 * patch}))
    images = torch.randn(1, 3, *size)
    height, width = size[0] // patch, size[1] // patch
    patches = model.embed_patches(images)
    assert patches.shape == (1, 32, height, width)
    assert torch.equal(patches, model.embed_patches(images[..., : height * patch, : width * patch]))


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    """With its size in the message."""
    with pytest.raises(UserError, match="50x7 pixels is smaller than one patch"):
        ViTBackbone(ViTConfig(**SMALL)).embed_patches(torch.zeros(1, 3, 7, 50))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_heads": 5}, "embed_dim=32 does not divide.*num_heads=5"), ({"img_size": 30}, "img_size=30 is no multiple")],
)
def test_impossible_dimensions_are_refused(change: dict, message: str) -> None:
    """With the keys in the message."""
    with pytest.raises(UserError, match=message):
        ViTBackbone(ViTConfig(**{**SMALL, **change}))


def test_stochastic_depth_grows_linearly_from_zero() -> None:
    """The rate of block i is drop_path * i / (depth - 1); the first block has none."""
    blocks = ViTBackbone(ViTConfig(drop_path=0.1, arch="deit_tiny_patch16_224")).blocks
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_stochastic_depth_is_timms(rate: float) -> None:
    """The same draws, kept branches scaled up; nothing in evaluation."""
    x = torch.randn(16, 5, 3)
    for training in (True, False):
        own, other = DropPath(rate).train(training), timm.layers.DropPath(rate).train(training)
        torch.manual_seed(1)
        found = own(x)
        torch.manual_seed(1)
        assert torch.equal(found, other(x))
