"""DeepLab from masks to scores. (Exact resume, two processes, a used folder: tests/test_training.py.)"""

import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from common.crf.dense import dense_crf
from common.data.dataset import DataConfig, ImageSet, read_mask
from common.data.loader import EpochBatches, TrainViews
from common.masks.options import MaskViewConfig
from common.masks.training import TrainingMasks
from common.masks.views import MaskViews, input_transform
from common.run.config import config_path, load_config
from common.run.errors import UserError
from common.run.weights import load_torch
from methods.deeplab.config import (
    DeepLabConfig,
    DeepLabInferConfig,
    DeepLabModelConfig,
)
from methods.deeplab.crf_image import clean_image, wrapped_image
from methods.deeplab.losses import DeepLabStep
from methods.deeplab.model import DeepLab
from tests.datasets import truncate
from tests.experiments import TINY_OF
from tests.helpers import Scripts, assert_same, contents, last, metrics

TINY = TINY_OF["deeplab"]
FILES = ["checkpoint_3.pth", "checkpoint_6.pth", "checkpoint_8.pth", "checkpoint_final.pth", "best.pth"]


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiments: Path) -> Scripts:
    """The scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, experiments / "deeplab.yaml", "deeplab")


@pytest.fixture(scope="module")
def whole(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        assert Scripts(patch, experiments / "deeplab.yaml", "deeplab").train("whole") == 0
        return SimpleNamespace(last=last("whole"), metrics=metrics("whole"), folder=Path("experiment/whole").absolute())


@pytest.fixture
def final(whole: SimpleNamespace) -> tuple[str, Path]:
    """The weights of the whole run, as an argument."""
    return "--load_pretrained", whole.folder / "ckpt" / "checkpoint_final.pth"


def network(state: dict) -> DeepLab:
    """The tiny network with given weights, in evaluation mode."""
    model = DeepLab(DeepLabModelConfig(**{**TINY["model"], "pretrained": "none"}), 7)
    model.load_state_dict(state)
    return model.eval()


def training_set(shapes: Path) -> ImageSet:
    return ImageSet(DataConfig(root=str(shapes)), "train")


def test_the_published_settings() -> None:
    """Of CRT's configurations for VOC and COCO."""
    voc, coco = (load_config(DeepLabConfig, config_path(f"deeplab_{name}")) for name in ("voc", "coco"))
    assert (voc.train.batch_size, voc.train.accumulation, voc.train.max_steps) == (10, 2, 20_000)
    assert (coco.train.batch_size, coco.train.accumulation, coco.train.max_steps) == (20, 1, 50_000)
    assert (voc.train.image_list, coco.train.image_list, coco.infer.image_list) == ("train_aug", "train14", "val14")
    assert voc.model.pretrained.endswith("-coco.pth") and coco.model.pretrained.endswith("-imagenet.pth")
    for config in (voc, coco):
        assert (config.views.input, config.views.crop_size) == ("caffe", 321)
        assert config.views.scales == [0.5, 0.75, 1.0, 1.25, 1.5]
        model, optim, crf = config.model, config.optim, config.infer.crf
        assert (model.width, model.blocks, model.stride_in) == (64, [3, 4, 23, 3], "reduce")
        assert (model.atrous_rates, model.scales) == ([6, 12, 18, 24], [0.5, 0.75])
        assert (optim.lr, optim.head_scale, optim.head_bias_scale, optim.momentum) == (2.5e-4, 10, 20, 0.9)
        assert (optim.weight_decay, optim.power, optim.lr_decay) == (5e-4, 0.9, 10)
        assert (crf.gaussian_sxy, crf.gaussian_compat, crf.iterations) == (1, 3, 10)
        assert (crf.bilateral_sxy, crf.bilateral_srgb, crf.bilateral_compat) == (67, 3, 4)
        assert (config.infer.scales, config.infer.flip, config.infer.clean_image) == ([1.0], "none", False)
        assert (config.train.keep_steps, config.train.eval_steps) == (5000, 0)
        assert config.runtime.precision == "fp32"


def test_a_run_writes_its_files_and_figures(whole: SimpleNamespace) -> None:
    """Checkpoints by step, four losses, the stepped schedule, validation on one scale."""
    assert {path.name for path in (whole.folder / "ckpt").iterdir()} == {"last.pth", *FILES}
    log = (whole.folder / "log.txt").read_text()
    assert "24 images, no labels, 6 steps an epoch" in log and "WARNING: random weights" in log
    assert "test_deeplab.py --name whole --crf" in log
    train = [line for line in whole.metrics if line["kind"] == "train"]
    assert [line["step"] for line in train] == [4, 8]
    for line in train:
        assert line["total"] == pytest.approx(sum(line[term] for term in ("x1", "x0.5", "x0.75", "max")), rel=1e-5)
        assert line["lr"] == pytest.approx(1e-3 * (1 - (line["step"] - 1) // 2 * 2 / 8) ** 0.9)
    validations = [line for line in whole.metrics if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [4, 8]
    assert all(0 <= line["val_mean_iou"] <= line["val_mean_accuracy"] <= 100 for line in validations)
    files = [load_torch(whole.folder / "ckpt" / file) for file in FILES[2:4]]
    assert_same(dict(files[0]), dict(files[1]))
    assert_same(dict(files[1]), whole.last["model"])


def test_accumulation_is_the_mean_of_the_micro_batches(scripts: Scripts, shapes: Path) -> None:
    """The first step by hand: each micro-batch's loss by its own number of valid pixels, their gradients' mean."""
    one = ("train.max_steps=1", "train.print_freq=1", "train.eval_steps=0", "runtime.seed=5")
    assert scripts.train("start", *one, "optim.lr=0") == 0
    assert scripts.train("x", *one) == 0
    images, model = training_set(shapes), network(last("start")["model"])
    masks = TrainingMasks(images, str(shapes / "SegmentationClass"), 7)
    views = TrainViews(images, MaskViews(MaskViewConfig(**TINY["views"])), 5, masks.load)
    batches, losses, step = list(EpochBatches(24, 4, 5, accumulation=2))[:2], [], DeepLabStep(model)
    assert [len(batch) for batch in batches] == [2, 2]
    for batch in batches:
        pixels, labels = (torch.stack(part) for part in zip(*(views[key][0] for key in batch), strict=True))
        losses.append(step(pixels, labels)["total"])
    assert losses[0] != losses[1]
    total = torch.stack(losses).mean()
    assert metrics("x")[0]["total"] == pytest.approx(total.item(), rel=1e-6)
    total.backward()
    after = network(last("x")["model"])
    for (name, before), changed in zip(model.named_parameters(), after.parameters(), strict=True):
        if ".bn." in name:
            assert torch.equal(before, changed)
            continue
        rate = 1e-3 * (1 if ".aspp." not in name else 20 if name.endswith("bias") else 10)
        decay = 0 if name.endswith("bias") else 5e-4
        expected = before - rate * (before.grad + decay * before)
        torch.testing.assert_close(changed.detach(), expected.detach(), rtol=1e-5, atol=1e-7, msg=name)


def test_masks_scores_and_submission(
    scripts: Scripts, whole: SimpleNamespace, final: tuple, shapes: Path, capsys: pytest.CaptureFixture
) -> None:
    """Masks are the largest of three scales' logits; the CRF sees the image; scores of both; an archive."""
    assert scripts.infer("x", *final, "--crf", "--submission") == 0
    output, run = capsys.readouterr().out, Path("experiment/x")
    assert "tensors loaded" in output and "segs_crf/val: 6 masks written, 0 were there" in output
    model, images = network(whole.last["model"]), ImageSet(DataConfig(root=str(shapes)), "val")
    changed = 0
    for index, image_id in enumerate(images.ids):
        image = images.load_image(index)
        with torch.no_grad():
            logits = model(input_transform("imagenet")(image)[None])
        size = image.size[::-1]
        probabilities = torch.nn.functional.interpolate(logits, size, mode="bilinear").softmax(1)[0].numpy()
        refined = dense_crf(clean_image(np.array(image)), probabilities, DeepLabInferConfig().crf).argmax(0)
        for folder, labels in (("segs", probabilities.argmax(0)), ("segs_crf", refined)):
            assert (read_mask(run / folder / "val" / f"{image_id}.png") != labels).mean() < 1e-3
        changed += (refined != probabilities.argmax(0)).sum()
    assert changed > 0
    for suffix in ("", "_crf"):
        scores = json.loads((run / f"scores{suffix}.json").read_text())
        assert set(scores) == {
            "Pixel Accuracy", "Mean Accuracy", "Frequency Weighted IoU", "Mean IoU", "Class IoU",
        }  # fmt: skip
        assert next(iter(scores["Class IoU"])) == "background" and len(scores["Class IoU"]) == 7
        assert f"{100 * scores['Mean IoU']:.2f} mean IoU, {100 * scores['Pixel Accuracy']:.2f} pixel" in output
        assert (run / f"eval_png{suffix}.json").is_file()
    with tarfile.open(run / "comp6_val.tar") as tar:
        names = [f"results/VOC2012/Segmentation/comp6_test_cls/{image_id}.png" for image_id in images.ids]
        assert tar.getnames() == names
        assert tar.extractfile(names[0]).read() == (run / "segs_crf" / "val" / f"{images.ids[0]}.png").read_bytes()
    before = contents(run / "segs" / "val")
    assert scripts.infer("x", *final, "--crf") == 0
    assert "0 masks written, 6 were there" in capsys.readouterr().out and contents(run / "segs" / "val") == before


def test_validation_is_the_test_on_one_scale(scripts: Scripts, whole: SimpleNamespace, final: tuple) -> None:
    """The last validation's figures, from the files that the test writes without scales."""
    assert scripts.infer("x", *final, "model.scales=[]") == 0
    scores, line = json.loads(Path("experiment/x/scores.json").read_text()), whole.metrics[-1]
    assert 100 * scores["Mean IoU"] == pytest.approx(line["val_mean_iou"], abs=0.01)
    assert 100 * scores["Pixel Accuracy"] == pytest.approx(line["val_pixel_accuracy"], abs=0.01)


def test_the_published_crf_is_for_caffes_input_only(
    scripts: Scripts, final: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapped image unless the clean one is asked for, or the input is not Caffe's; masks are not mixed."""
    seen = []
    monkeypatch.setattr("common.masks.network.refine_mask", lambda *job: seen.append(job[-1]))
    monkeypatch.setattr("common.masks.network.report_masks", lambda *args: {})
    caffe = "views.input=caffe"
    for name, options, image in (
        ("a", (caffe,), wrapped_image), ("b", (caffe, "infer.clean_image=true"), clean_image), ("c", (), clean_image),
    ):  # fmt: skip
        seen.clear()
        assert scripts.infer(name, *final, "--crf", *options) == 0
        assert set(seen) == {image}
    for other in ("views.input=caffe", "model.scales=[0.5]", "infer.flip=max"):
        with pytest.raises(UserError, match="segs/val holds masks of another checkpoint or other settings"):
            scripts.infer("c", *final, other)


def test_more_scales_and_mirror_images(scripts: Scripts, final: tuple) -> None:
    """Other masks, of the same sizes."""
    assert scripts.infer("x", *final) == 0
    assert scripts.infer("ms", *final, "infer.scales=[0.75, 1.0, 1.5]", "infer.flip=max") == 0
    one, more = (contents(f"experiment/{name}/segs/val") for name in ("x", "ms"))
    assert one.keys() == more.keys() and one != more


def test_a_list_without_masks_is_segmented_but_not_scored(
    scripts: Scripts, own_data: Path, final: tuple, capsys: pytest.CaptureFixture
) -> None:
    """As VOC's test images are; neither are labels needed."""
    for path in (own_data / "SegmentationClass").glob("2027_*"):
        path.unlink()
    (own_data / "ImageSets/Segmentation/val.txt").rename(own_data / "ImageSets/Segmentation/test.txt")
    arguments = (*final, f"data.root={own_data}", "--infer_list", "test")
    assert scripts.infer("x", *arguments, "data.labels=nowhere", "--comp5") == 0
    assert "not scored: no masks of 'test'" in capsys.readouterr().out
    assert Path("experiment/x/comp5_test.tar").is_file() and not list(Path("experiment/x").glob("*.json"))
    with pytest.raises(UserError, match="the data set is coco14"):
        scripts.infer("x", *arguments, "--submission", "data.dataset=coco14")


def test_a_run_that_cannot_start_leaves_nothing(scripts: Scripts, own_data: Path) -> None:
    """Masks missing or not given, weights missing, masks for validation missing."""
    masks = own_data / "SegmentationClass"
    for path in sorted(masks.glob("2026_*"))[:3]:
        path.unlink()
    for wrong, words in (
        (
            ("--masks", masks),
            r"3 of the 24 masks of list 'train' are missing: .*Pseudo masks .* are made by",
        ),
        (("--masks", ""), "--masks is missing"),
        (("--init", "lost.pth"), r"no initial weights lost\.pth"),
        (("train.val_list=train", f"data.root={own_data}"), "3 of the 24 masks of list 'train'"),
        (("train.accumulation=3",), "does not divide"),
    ):
        with pytest.raises(UserError, match=words):
            scripts.train("x", *wrong)
    assert not Path("experiment").exists()


def test_a_damaged_mask_is_named(scripts: Scripts, own_data: Path) -> None:
    """Also from a loader's worker process."""
    path = sorted((own_data / "SegmentationClass").glob("2026_*"))[0]
    truncate(path)
    with pytest.raises(UserError, match=rf"the mask .*{path.name} cannot be read"):
        scripts.train("x", "--masks", own_data / "SegmentationClass", "runtime.num_workers=1")


@pytest.mark.parametrize(
    "setting", ["runtime.precision=bf16", "model.scales=[]", "model.channels_last=true", "model.stride_in=conv3x3"]
)
def test_other_settings(scripts: Scripts, setting: str) -> None:
    """They train and are tested; the weights stay float32."""
    assert scripts.train("x", "train.max_steps=2", "train.eval_steps=2", setting) == 0
    assert {value.dtype for value in last("x")["model"].values()} == {torch.float32, torch.int64}
    assert scripts.infer("x") == 0
    with Image.open(next(Path("experiment/x/segs/val").glob("*.png"))) as mask:
        assert mask.mode == "P"


def test_a_run_starts_from_anothers_weights(scripts: Scripts, whole: SimpleNamespace, final: tuple) -> None:
    """A checkpoint of its own kind, whole."""
    assert scripts.train("x", "--init", final[1], "train.max_steps=1", "train.eval_steps=0", "optim.lr=0") == 0
    assert "a DeepLab checkpoint: backbone" in Path("experiment/x/log.txt").read_text()
    assert_same(last("x")["model"], whole.last["model"])
