"""timm's models as backbones: a tiny random variant of every family against timm itself, sizes, weights, refusals."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.options import ViTConfig
from common.nets.timm_models import as_deit, build, changed_sizes, facts, timm_weights
from common.nets.vit import ViTBackbone, unpadded
from common.run.errors import UserError
from common.run.weights import save_torch

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"embed_dim": 64, "depth": 2, "num_heads": 2, "drop_path": 0.0}
WIDER = {"dinov2, GLU": {"embed_dim": 96}}  # of which its MLP's ratio makes a whole number
FAMILIES = {
    "deit": "deit_small_patch16_224", "deit3": "deit3_small_patch16_224",
    "augreg": "vit_small_patch16_224.augreg_in21k", "augreg, patch 8": "vit_base_patch8_224",
    "dinov2": "vit_small_patch14_dinov2", "dinov2 with registers": "vit_small_patch14_reg4_dinov2",
    "dinov2, GLU": "vit_giant_patch14_dinov2", "dinov3": "vit_small_patch16_dinov3",
    "dinov3, GLU": "vit_huge_plus_patch16_dinov3", "dinov3, biases": "vit_small_patch16_dinov3_qkvb",
    "clip": "vit_base_patch16_clip_224.openai", "siglip": "vit_base_patch16_siglip_224",
    "eva02": "eva02_small_patch14_224", "eva02, split q, k, v": "eva02_base_patch14_224",
    "q and k norms": "vit_medium_patch16_reg4_gap_256", "absolute positions in Eva": "eva_large_patch14_196",
}  # fmt: skip


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Plain(ViTBackbone):
    """The backbone's own class token, if it has one, and nothing else: timm's model."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.num_tokens = int(self.has_class_token)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, self.embed_dim))
        self.norm = self.last_norm()
        self.settle_positions(self.pos_embed)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        patches = self.embed_patches(images)
        grid = tuple(patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2) + self.resize_positions(self.pos_embed[:, 1:], *grid)
        own = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), -1, -1)[:, : self.num_tokens]
        return self.enter(torch.cat([own, patches], dim=1)), grid


def tiny_config(family: str, **changes: Any) -> ViTConfig:
    arch = f"timm:{FAMILIES[family]}"
    patch = facts(arch).patch
    config = ViTConfig(arch=arch, pretrained="none", img_size=4 * patch, **TINY | WIDER.get(family, {}) | changes)
    config.check()
    return config


def pair(family: str) -> tuple[Plain, Any, ViTConfig]:
    """Our backbone and timm's model with the same random weights, no vector of them constant."""
    torch.manual_seed(0)
    config = tiny_config(family)
    theirs: Any = timm.create_model(config.arch[5:], pretrained=False, num_classes=0, **changed_sizes(config)).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 0.5)
    ours = Plain(config).eval()
    heads = "fc_norm", "attn_pool"
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith(heads)}
    ours.load_state_dict(as_deit(theirs, state), strict=True)
    return ours, theirs, config


def normalised_for(theirs: Any, images: Tensor) -> Tensor:
    """ImageNet-normalised images with the model's own normalisation instead."""
    config = theirs.pretrained_cfg
    constants = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, config["mean"], config["std"]
    mean, std, new_mean, new_std = (torch.tensor(part).view(3, 1, 1) for part in constants)
    return (images * std + mean - new_mean) / new_std


def features(ours: Plain, images: Tensor, request: MapRequest | None = None) -> tuple[Tensor, list[Tensor]]:
    """All tokens after the last norm, and the blocks' maps."""
    tokens, grid = ours.embed(images)
    maps = []
    for block in ours.blocks_at(grid):
        tokens, attention = block(tokens, request)
        maps.append(attention)
    return ours.norm(tokens), maps


def softmax_of(theirs: Any, images: Tensor) -> list[Tensor]:
    """Head-averaged attention of every block, written out: from timm's inputs of its fused kernel."""
    found = []

    def written_out(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q.double(), k.double()) / q.shape[-1] ** 0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(weights.mean(1))
        return (weights @ v.double()).to(v.dtype)

    kernel = F.scaled_dot_product_attention
    try:
        F.scaled_dot_product_attention = written_out
        theirs.forward_features(images)
    finally:
        F.scaled_dot_product_attention = kernel
    return found


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_family_is_timms(family: str) -> None:
    """Features and head-averaged maps at the training size, a larger and an oblong one; sums of rows; padding."""
    ours, theirs, config = pair(family)
    patch, side = config.patch_size, config.img_size
    for height, width in ((side, side), (6 * patch, 3 * patch)):
        images = torch.randn(2, 3, height, width)
        expected = theirs.forward_features(normalised_for(theirs, images))
        scale = expected.abs().max()
        assert (features(ours, images)[0] - expected).abs().max() <= 1e-5 * scale
        written = softmax_of(theirs, normalised_for(theirs, images))
        for request in (MapRequest(), MapRequest(1), MapRequest(3)):
            found, maps = features(ours, images, request)
            assert (found - expected).abs().max() <= 1e-5 * scale
            for attention, reference in zip(maps, written, strict=True):
                rows = reference[:, : request.rows]
                assert (attention - rows).abs().max() <= 1e-6
                torch.testing.assert_close(attention.sum(-1), torch.ones(rows.shape[:2]), rtol=0, atol=1e-5)
    # No multiple of the patch: padded at the right and bottom with zeros after the model's own normalisation.
    images = torch.randn(1, 3, side + 1, side - 1)
    padded = F.pad(normalised_for(theirs, images), (0, 1, 0, patch - 1))
    expected = theirs.forward_features(padded)
    assert (features(ours, images)[0] - expected).abs().max() <= 1e-5 * expected.abs().max()


REAL = {
    "deit3": "deit3_small_patch16_224", "dinov2 with registers": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov3": "vit_small_patch16_dinov3.lvd1689m", "clip": "vit_base_patch16_clip_224.openai",
    "siglip": "vit_base_patch16_siglip_224.webli", "eva02": "eva02_small_patch14_224.mim_in22k",
}  # fmt: skip


def random_state(model: nn.Module) -> dict[str, Tensor]:
    """Random values under a model's names, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("family", REAL)
def test_weights_of_the_real_architecture_are_loaded_whole(family: str, inside: Path) -> None:
    """Names and shapes of the published file, with its heads; nothing is left at its first value, nothing left over."""
    config = ViTConfig(arch=f"timm:{REAL[family]}", pretrained="weights.pth", depth=1)
    config.check()
    with torch.device("meta"):
        published = timm.create_model(REAL[family], depth=1)
    state = random_state(published)
    save_torch("weights.pth", state)
    model = Plain(config)
    model.load_state_dict(timm_weights(config), strict=True)
    for name, value in model.state_dict().items():
        if name in state and name not in ("pos_embed", "reg_token"):
            assert torch.equal(value, state[name]), name
    for damage, words in (
        ({"extra.weight": torch.zeros(1)}, "left over"), ({"blocks.0.norm1.weight": torch.zeros(3)}, "another shape"),
    ):  # fmt: skip
        save_torch("weights.pth", state | damage)
        with pytest.raises(UserError, match=words):
            timm_weights(config)
    del state["blocks.0.attn.proj.weight"]
    save_torch("weights.pth", state)
    with pytest.raises(UserError, match=r"1 missing \(blocks\.0\.attn\.proj\.weight\)"):
        timm_weights(config)


def test_positions_of_another_image_size_are_resized_as_timm_does(inside: Path) -> None:
    """DINOv2's 37 x 37 to 16 x 16, as timm's model of 224 pixels loads them."""
    config = ViTConfig(arch="timm:vit_small_patch14_dinov2", pretrained="w.pth", img_size=224, depth=1)
    config.check()
    state = random_state(build(config.arch, depth=1))
    save_torch("w.pth", state)
    theirs = timm.create_model(
        config.arch[5:], pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}, img_size=224, depth=1,
        num_classes=0,
    )  # fmt: skip
    assert torch.equal(timm_weights(config)["pos_embed"], theirs.pos_embed)


def dino_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names of a DINOv2 model with registers as Meta's file has them."""
    positions = torch.cat([state["cls_token"][:, :1] * 0, state["pos_embed"]], 1)
    names = {"reg_token": "register_tokens"}
    meta = {names.get(name, name): value for name, value in state.items()}
    return {**meta, "mask_token": torch.zeros(1, 64), "pos_embed": positions}


def clip_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names of a CLIP model as OpenCLIP's file has them."""
    pairs = (
        ("blocks.", "transformer.resblocks."), (".attn.qkv.weight", ".attn.in_proj_weight"),
        (".attn.qkv.bias", ".attn.in_proj_bias"), (".attn.proj.", ".attn.out_proj."), (".mlp.fc1.", ".mlp.c_fc."),
        (".mlp.fc2.", ".mlp.c_proj."), ("norm_pre.", "ln_pre."), (".norm1.", ".ln_1."), (".norm2.", ".ln_2."),
        ("patch_embed.proj.", "conv1."),
    )  # fmt: skip
    found = {}
    for name, value in state.items():
        for ours, theirs in pairs:
            name = name.replace(ours, theirs)
        name = {"cls_token": "class_embedding", "pos_embed": "positional_embedding"}.get(name, name)
        name = name.replace("norm.", "ln_post.") if name.startswith("norm.") else name
        shaped = value.flatten() if name == "class_embedding" else value[0] if name.startswith("positional") else value
        found[f"visual.{name}"] = shaped
    return {**found, "visual.proj": torch.zeros(64, 8)}


@pytest.mark.parametrize(("family", "keys"), [("dinov2 with registers", dino_keys), ("clip", clip_keys)])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_key_styles(family: str, keys: Any, form: str, inside: Path) -> None:
    """Files as DINO's and CLIP's authors publish them give the same weights as timm's, in both forms of files."""
    config = tiny_config(family)
    state = random_state(build(config.arch, **changed_sizes(config)))
    expected = as_deit(build(config.arch, **changed_sizes(config)), state)
    config.pretrained = f"w.{form}"
    foreign = {name: value.contiguous() for name, value in keys(state).items()}
    if form == "pth":
        save_torch("w.pth", foreign)
    else:
        from safetensors.torch import save_file

        save_file({name: value.clone() for name, value in foreign.items()}, "w.safetensors")
    found = timm_weights(config)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("vit_smal_patch16_224", r"no model 'vit_smal_patch16_224'\. Near names: .*vit_small_patch16_224"),
        ("resnet50", "is timm's ResNet: it is no vision transformer"),
        ("beit_base_patch16_224", "is timm's Beit: .*biases of relative positions"),
        ("deit_small_distilled_patch16_224", "distillation token"),
        ("vit_small_patch16_224.dinov9", r"no weights with the tag 'dinov9'; known: .*augreg_in21k"),
        ("vit_base_patch16_xp_224", "not understood: ParallelScalingBlock"),
        ("vit_base_patch16_rope_mixed_224", "not understood: rope: RotaryEmbeddingMixed"),
    ],
)
def test_other_models_are_refused(arch: str, words: str) -> None:
    """By what is not understood, with names that are near."""
    with pytest.raises(UserError, match=words):
        ViTBackbone(ViTConfig(arch=f"timm:{arch}", pretrained="none"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": 16}, "has patches of 14 pixels"), ({"img_size": 100}, "no multiple of .*the nearest is 98"),
        ({"num_heads": 5}, "does not divide"),
    ],
)  # fmt: skip
def test_wrong_sizes_are_refused(changes: dict[str, int], words: str) -> None:
    """With what would be right."""
    with pytest.raises(UserError, match=words):
        ViTConfig(arch="timm:vit_small_patch14_dinov2", **changes).check()
    with pytest.raises(UserError, match="multiple of 4, here it is 6"):
        ViTBackbone(ViTConfig(arch="timm:vit_small_patch16_dinov3", pretrained="none", embed_dim=12, num_heads=2))


def test_missing_weights_name_what_to_fetch(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network: the file, and the place to put it."""

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("common.nets.timm_models.from_timm_hub", offline)
    config = ViTConfig(arch="timm:vit_small_patch14_dinov2")
    config.check()
    name = "vit_small_patch14_dinov2.lvd142m"
    with pytest.raises(UserError, match=re.escape(f"fetch model.safetensors of timm/{name}")) as caught:
        timm_weights(config)
    assert f"pretrained/{name}.safetensors" in str(caught.value) and "model.pretrained=none" in str(caught.value)
    config = ViTConfig(arch="timm:vit_small_patch16_36x1_224")
    config.check()
    with pytest.raises(UserError, match="timm publishes no weights of it"):
        timm_weights(config)


def test_sizes_come_from_timm() -> None:
    """Image, patch, width, depth and heads, where the configuration leaves them open."""
    config = ViTConfig(arch="timm:vit_small_patch14_dinov2")
    config.check()
    assert (config.img_size, config.patch_size, config.dimensions()) == (518, 14, (384, 12, 6))
    own = ViTConfig()
    own.check()
    assert (own.img_size, own.patch_size) == (224, 16)


@pytest.mark.parametrize(("freeze", "trained"), [("none", 4), ("first:0", 3), ("first:1", 2), ("all", 0)])
@pytest.mark.parametrize("family", ["dinov2 with registers", "dinov3", "clip"])
def test_frozen_layers(family: str, freeze: str, trained: int) -> None:
    """Embedding with positions, registers and the norm before; blocks; the norm after."""
    model = Plain(tiny_config(family, freeze=freeze))
    parts = (model.patch_embed, *model.blocks, model.norm)
    is_trained = [all(parameter.requires_grad for parameter in part.parameters()) for part in parts]
    assert sum(is_trained) == trained
    embedding = [model.pos_embed] * (family != "dinov3") + [model.reg_token] * (model.reg_token is not None)
    embedding += list(model.norm_pre.parameters())
    assert {parameter.requires_grad for parameter in embedding} == {is_trained[0]}
    assert model.pos_embed.requires_grad == (is_trained[0] and family != "dinov3")


def test_maps_of_padded_images_are_cut() -> None:
    """Each pixel keeps its place: a map of 2 x 2 patches of 14 over an image of 28 x 20 pixels."""
    model = Plain(tiny_config("dinov2"))
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    full = F.interpolate(maps, size=(28, 28), mode="bilinear", align_corners=False)
    assert torch.equal(unpadded(maps, model.padded_size(maps, (28, 20)), (28, 20)), full[..., :20])
    assert unpadded(maps, model.padded_size(maps, (28, 28)), (28, 28)) is maps
