"""CRT's two networks: what the goldens do not reach."""

import pytest
import timm
import torch
from torch import Tensor, nn

from common.nets.attention import MapRequest
from common.nets.load import load_checked
from common.nets.options import ResNetConfig, ViTConfig
from common.nets.tiles import cut_tiles, merge_tiles
from common.run.errors import UserError
from methods.crt.config import CRTModelConfig
from methods.crt.model import CRT, CNNBranch, DeiTBranch, released_cnn, released_deit, tiled_deit

CNN = {"arch": "resnet50", "blocks": [1, 1, 1, 1]}
DEIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "drop_path": 0.0}


def small(**changes: int) -> CRT:
    """Tiny networks of three classes, always the same, in training mode."""
    torch.manual_seed(0)
    return CRT(CRTModelConfig(ResNetConfig(**CNN), ViTConfig(**{**DEIT, **changes})), 3)


def plain(**changes: int) -> nn.Module:
    """timm's DeiT of the same size."""
    torch.manual_seed(1)
    return timm.models.vision_transformer.VisionTransformer(32, 8, embed_dim=32, depth=2, num_heads=2, **changes)


def test_names_and_counts_are_the_references() -> None:
    """timm's DeiT-S with a convolution for a head; a ResNet-152, most of which is trained."""
    with torch.device("meta"):
        model = CRT(CRTModelConfig(), 20)
        encoder = timm.create_model("deit_small_patch16_224").state_dict()
    expected = {name: tuple(value.shape) for name, value in encoder.items()}
    expected |= {"head.weight": (20, 384, 3, 3), "head.bias": (20,)}
    assert {name: tuple(value.shape) for name, value in model.deit.state_dict().items()} == expected
    assert len(expected) == 152 and sum(value.numel() for value in model.deit.parameters()) == 21_734_804
    of_cnn = dict(model.cnn.named_parameters())
    assert len(of_cnn) == 466 and sum(value.numel() for value in of_cnn.values()) == 58_184_768
    fixed = {name.split(".")[1] for name, value in of_cnn.items() if not value.requires_grad}
    assert fixed == {"conv1", "bn1", "layer1", "layer2"} and model.deit.passes == 3 and model.tile == 224
    assert all(value.requires_grad for value in model.deit.parameters())


def test_passes_and_their_outer_residual() -> None:
    """x + F(x) so many times; one pass without it is a plain DeiT."""
    torch.manual_seed(0)
    images, with_residual = torch.randn(2, 3, 32, 32), DeiTBranch(ViTConfig(**DEIT), 3, passes=2)
    tokens = with_residual.embed(images)
    for _ in range(2):
        x = tokens
        for block in with_residual.blocks:
            x = block(x)[0]
        tokens = tokens + x
    torch.testing.assert_close(with_residual.encode(images), with_residual.norm(tokens))
    library, model = plain().eval(), DeiTBranch(ViTConfig(**DEIT), 3, passes=1, outer_residual=False)
    coverage = model.load_imagenet(library.state_dict())
    assert not coverage.missing and not coverage.unexpected
    torch.testing.assert_close(model.encode(images), library.forward_features(images), rtol=1e-4, atol=1e-5)


def test_attention_rows_are_summed_over_blocks_and_passes() -> None:
    """Maps are those without attention; with the class token's own column a row sums to blocks times passes."""
    model, images = small().deit, torch.randn(2, 3, 32, 32)
    rows, tokens = 0.0, model.embed(images)
    for _ in range(3):
        x = tokens
        for block in model.blocks:
            x, attention = block(x, MapRequest())
            rows = rows + attention[:, :1]
        tokens = tokens + x
    maps, attended = model.maps_with_attention(images)
    torch.testing.assert_close(maps, model(images))
    torch.testing.assert_close(attended, rows[..., 1:].unflatten(2, (4, 4)))
    torch.testing.assert_close(rows.sum(-1), torch.full((2, 1), 6.0))
    assert not maps.requires_grad and attended.dtype == torch.float32


def test_the_forward_pass_joins_both_branches() -> None:
    """Whole images for the CNN, merged tiles for the DeiT; an image that tiles do not cover is refused."""
    model, images = small().eval(), torch.randn(2, 3, 48, 64)
    of_cnn, of_deit = model(images)
    torch.testing.assert_close(of_cnn, model.cnn(images))
    torch.testing.assert_close(of_deit, merge_tiles(model.deit(cut_tiles(images, 32)), (2, 3)))
    assert of_cnn.shape == (2, 3, 3, 4) and of_deit.shape == (2, 3, 6, 8)
    with pytest.raises(UserError, match="60x48 pixels cannot be cut"):
        model(images[..., :60])
    with pytest.raises(UserError, match="img_size=24, the side of a tile, is no multiple of two patches of 8"):
        small(img_size=24)


def test_the_cnn_learns_from_layer3_on() -> None:
    """No gradient before it, none for images, and no statistics are gathered; heads and DeiT all learn."""
    model, images = small().train(), torch.randn(2, 3, 48, 48, requires_grad=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.cnn(images).abs().sum().backward()
    assert images.grad is None
    learned = {name.split(".")[1] for name, value in model.cnn.named_parameters() if value.grad is not None}
    assert learned == {"layer3", "layer4", "weight"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.deit(images[..., :32, :32].detach()).abs().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in model.deit.parameters())


def test_only_the_same_deit_is_a_start() -> None:
    """Its linear head is left out, the convolution stays; another grid or another token is refused."""
    model, library = small().deit, plain()
    head = model.head.weight.clone()
    model.load_imagenet(library.state_dict())
    assert torch.equal(model.head.weight, head)
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, library.blocks[1].mlp.fc1.weight)
    for other in (plain(reg_tokens=1), plain(mlp_ratio=2)):
        with pytest.raises(UserError, match="the ImageNet checkpoint does not fit this model"):
            model.load_imagenet(other.state_dict())


def as_released(model: CNNBranch) -> dict[str, Tensor]:
    """A state dict as the authors' code saves it: the same tensors under several names."""
    backbone, classifier = model.backbone.state_dict(), model.classifier.weight
    state = {f"resnet50.{name}": value for name, value in backbone.items()}
    state |= {f"stage2.0.{name.removeprefix('layer2.')}": v for name, v in backbone.items() if "layer2." in name}
    state |= {f"backbone.1.0.{name.removeprefix('layer2.')}": v for name, v in backbone.items() if "layer2." in name}
    return {**state, "classifier.weight": classifier, "newly_added.0.weight": classifier}


def test_released_weights_and_ones_own_load() -> None:
    """The authors' two files, and a training's epoch file, which holds both networks."""
    source, target = small(), small()
    nn.init.ones_(source.cnn.classifier.weight)
    joint = source.state_dict()
    files = {"cnn": (as_released(source.cnn), joint), "deit": (source.deit.state_dict(), joint)}
    for name, pick in (("cnn", released_cnn), ("deit", released_deit)):
        for state in files[name]:
            own = getattr(target, name)
            for value in own.parameters():
                nn.init.zeros_(value)
            load_checked(own, pick(state), "released")
            for key, value in getattr(source, name).state_dict().items():
                assert torch.equal(own.state_dict()[key], value), key
    with pytest.raises(UserError, match="does not fit"):
        load_checked(tiled_deit(CRTModelConfig(deit=ViTConfig(**DEIT)), 4), released_deit(joint), "other classes")
