"""The ViT segmenter: decoders, windows, disputed masks, teacher; from masks to scores. (Exact resume, two processes, a
used folder: tests/test_training.py.)
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from common.data.dataset import DataConfig, ImageSet, read_mask
from common.data.masks import write_mask
from common.masks.training import TrainingMasks
from common.run.errors import UserError
from methods.vitseg.config import TeacherConfig, VitSegInferConfig, VitSegModelConfig, VitSegOptimConfig
from methods.vitseg.losses import Teacher, VitSegStep, upsampled
from methods.vitseg.masks import DisputedMasks
from methods.vitseg.model import VitSeg, logits_function, window_logits
from methods.vitseg.optim import vitseg_optimizer
from tests.helpers import Scripts

pytestmark = pytest.mark.usefixtures("one_thread")
ARCHES = "deit_small_patch16_224", "timm:vit_small_patch14_reg4_dinov2", "timm:vit_base_patch16_siglip_224"
TINY = {"pretrained": "none", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def network(decoder: str = "mask", **changes: object) -> VitSeg:
    torch.manual_seed(0)
    return VitSeg(VitSegModelConfig(**{**TINY, "decoder": decoder, "drop_path": 0.0, **changes}), 4).eval()


@pytest.mark.parametrize("decoder", ["linear", "mask"])
@pytest.mark.parametrize(
    "arch", ["deit_small_patch16_224", "timm:vit_small_patch14_reg4_dinov2", "timm:vit_base_patch16_siglip_224"]
)
@torch.no_grad()
def test_logits_of_any_size(decoder: str, arch: str) -> None:
    """A logit per patch and label; of padded images one per pixel; an image alone as in a batch."""
    model = network(decoder, arch=arch)
    images = torch.randn(2, 3, 40, 24)
    logits = model(images)
    assert logits.shape == (2, 4, 5, 3)
    torch.testing.assert_close(model(images[1:]), logits[1:], rtol=1e-4, atol=1e-5)
    odd = model(torch.randn(1, 3, 33, 37))
    assert odd.shape == ((1, 4, 33, 37) if arch.startswith("timm:") else (1, 4, 4, 4))


@torch.no_grad()
def test_mask_logits_are_normalised_cosines() -> None:
    """Over the labels, the mean is the norm's bias; each is bounded by the cosines' spread."""
    decoder = network().decoder
    seen = []
    decoder.mask_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = decoder(torch.randn(2, 7, 32))
    assert logits.shape == (2, 7, 4) and seen[0].abs().max() <= 1 + 1e-5
    torch.testing.assert_close(logits.mean(-1), torch.zeros(2, 7), rtol=0, atol=1e-5)


def test_windows_are_averaged() -> None:
    """Every pixel is seen; the mean over windows of a function of pixels alone is that function."""
    images = torch.randn(1, 3, 50, 37)
    sizes = []

    def pixelwise(part: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(part.shape[-2:]))
        return part * 2

    torch.testing.assert_close(window_logits(pixelwise, images, 32, 20), images * 2)
    assert len(sizes) == 4 and set(sizes) == {(32, 32)}
    model = network()
    assert logits_function(model, VitSegInferConfig()) is model
    with torch.no_grad():
        assert torch.equal(logits_function(model, VitSegInferConfig(window=64))(images), model(images))


class Fixed(nn.Module):
    """Gives logits that it is told."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits


def test_teacher_replaces_labels_where_it_is_sure() -> None:
    """From its epoch on, but in no padding; its weights follow the network's."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 2, :2] = 9.0
    teacher = Teacher(Fixed(logits), TeacherConfig(from_epoch=1, momentum=0.75, confidence=0.9))
    targets = torch.tensor(
        [[[1, 1, 255, 255], [1, 255, 0, 255], [1, 1, 1, 255], [255, 255, 255, 255]]], dtype=torch.uint8
    )
    images = torch.zeros(1, 3, 4, 4)
    assert torch.equal(teacher.corrected(images, targets, 0), targets)
    expected = targets.clone()
    expected[0, :2, :3] = 2
    assert torch.equal(teacher.corrected(images, targets, 1), expected)
    teacher.follow(Fixed(torch.zeros(1, 3, 4, 4)))
    torch.testing.assert_close(teacher.network.logits, logits * 0.75)


def test_every_parameter_has_a_group() -> None:
    """Decoder and layers with their rates; vectors and tokens do not decay."""
    model = network()
    optimizer = vitseg_optimizer(model, VitSegOptimConfig(layer_decay=0.5, head_scale=10.0))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert found.keys() == set(names.values())
    assert found["decoder.embed.weight"] == (10.0, 0.01) and found["decoder.label_tokens"] == (10.0, 0.0)
    assert found["encoder.blocks.1.attn.qkv.weight"] == (0.5, 0.01) and found["encoder.pos_embed"] == (0.125, 0.0)


@pytest.mark.parametrize("size", [(40, 56), (3, 4), (5, 7)])
def test_logits_are_upsampled_as_pytorch_does(size: tuple[int, int]) -> None:
    """Values and gradients, upwards, downwards and at the same size."""
    logits = torch.randn(2, 3, 5, 7, requires_grad=True)
    wanted = interpolate(logits, size=size, mode="bilinear", align_corners=False)
    weights = torch.randn(wanted.shape)
    found = upsampled(logits, size)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    gradients = (torch.autograd.grad((maps * weights).sum(), logits)[0] for maps in (found, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_loss_is_the_mean_over_labelled_pixels() -> None:
    """At the images' size; without any labelled pixel it is 0."""
    logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    targets = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    step, images = VitSegStep(Fixed(logits)), torch.zeros(1, 3, 2, 2)
    assert step(images, targets)["total"] == 0
    targets[0, 0, 0] = 1
    assert step(images, targets)["total"].item() == pytest.approx(np.log(1 + np.exp(-1)))


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiments: Path) -> Scripts:
    """The scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, experiments / "vitseg.yaml", "vitseg")


def test_from_masks_to_scores(scripts: Scripts, shapes: Path, capsys: pytest.CaptureFixture) -> None:
    """Disputed pixels are left out of the training; test with windows, flips and scales, and the archive."""
    others = Path("others")
    for path in sorted((shapes / "SegmentationClass").glob("*.png")):
        write_mask(others / path.name, np.zeros_like(read_mask(path)))
    disputed = "--other_masks", others, "train.ignore=disputed"
    assert scripts.train("x", *disputed, "train.max_steps=2", "train.eval_steps=0") == 0
    assert {path.name for path in Path("experiment/x/ckpt").iterdir()} >= {"checkpoint_2.pth", "checkpoint_final.pth"}
    scripts.infer("x", "infer.window=32", "infer.scales=[1.0, 1.5]")
    assert len(list(Path("experiment/x/segs/val").glob("*.png"))) == 6
    assert Path("experiment/x/scores.json").is_file() and "mean IoU" in capsys.readouterr().out
    with pytest.raises(UserError, match="do not go together"):
        scripts.train("y", "--other_masks", others)


def test_disputed_pixels_are_ignored(shapes: Path, tmp_path: Path) -> None:
    """Where two masks differ, and nowhere else."""
    images = ImageSet(DataConfig(root=str(shapes), classes=str(shapes / "classes.txt")), "val")
    one = TrainingMasks(images, str(shapes / "SegmentationClass"), 7)
    mask = one.load(0)[1]
    other = mask.copy()
    other[:5] = (other[:5] + 1) % 7
    for index, image_id in enumerate(images.ids):
        write_mask(tmp_path / f"{image_id}.png", other if index == 0 else one.load(index)[1])
    _, found = DisputedMasks(one, TrainingMasks(images, str(tmp_path), 7)).load(0)
    assert (found[:5] == 255).all() and (found[5:] == mask[5:]).all()
