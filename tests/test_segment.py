"""Masks of a list: views, files, CRF beside the network, restart, sharing, scores."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.crf.dense import dense_crf
from common.data.dataset import DataConfig, ImageSet
from common.data.transforms import eval_transform
from common.masks.network import MaskFolders, open_mask_folders, report_masks, segment_logits, write_masks
from common.masks.options import SegmentConfig, SegmentViews
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.run.options import RuntimeConfig
from common.run.pool import WorkerPool
from common.run.processes import Processes
from common.score.images import has_masks
from tests.datasets import make_voc, write_image, write_lines
from tests.helpers import contents

WEIGHTS = {"checkpoint": "weights.pth", "modified": 1}


class OneOfSeveral(Processes):
    """A process that does its share without waiting for others."""

    def barrier(self) -> None:
        """Does not wait."""

    def gather_objects(self, value: object) -> list:
        """What this process has."""
        return [value]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images() -> ImageSet:
    """Seven images of two sizes, opened without labels."""
    ids = make_voc(Path("voc"), 6)
    for number in (1, 4):
        write_image(Path("voc/JPEGImages") / f"{ids[number]}.jpg", (40, 24), seed=number)
    return ImageSet(DataConfig(root="voc"), str(write_lines(Path("all.txt"), ids)))


def network() -> Callable[[Tensor], Tensor]:
    """Images (b, 3, H, W) to logits (b, 21, H // 8, W // 8)."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 21, 8, stride=8).requires_grad_(False)


def runtime(rank: int = 0, world: int = 1, **config: str) -> Runtime:
    return Runtime(RuntimeConfig(device="cpu", **config), OneOfSeveral(rank, rank, world))


def settings(**changes: object) -> SegmentConfig:
    return SegmentConfig(**{"scales": [1.0, 1.5], "batch_size": 2, "num_workers": 0, **changes})


def opened(
    images: ImageSet, config: SegmentConfig, name: str = "x", crf: bool = False, overwrite: bool = False, **how: str
) -> MaskFolders:
    return open_mask_folders(RunFolder(name), images, "x", config, WEIGHTS, runtime(**how), crf, overwrite)


@pytest.mark.parametrize("resize", [0, 32])
@pytest.mark.parametrize("flip", ["sum", "max", "none"])
@pytest.mark.parametrize("merge", ["max", "sum"])
def test_views_one_by_one(resize: int, flip: str, merge: str) -> None:
    """Every image and view on its own; then mirror images join their scale, and only then scales each other."""
    scales, logits_of, size = [1.0, 1.5, 0.7], network(), (37, 50)
    images = torch.randn(2, 3, 41, 53)
    views = SegmentViews(resize=resize, scales=scales, flip=flip, merge=merge)
    found = segment_logits(logits_of, images, size, views)
    join = {"sum": lambda maps: torch.stack(maps).sum(0), "max": lambda maps: torch.stack(maps).amax(0)}
    for image, merged in zip(images.split(1), found, strict=True):
        height, width = (resize, resize) if resize else (41, 53)
        base = F.interpolate(image, (height, width), mode="bilinear") if resize else image
        by_scale = []
        for scale in scales:
            place = (int(height * scale), int(width * scale))
            view = F.interpolate(base, place, mode="bilinear") if scale != 1 else base
            plain = F.interpolate(logits_of(view), size, mode="bilinear")
            mirrored = F.interpolate(logits_of(view.flip(-1)), size, mode="bilinear").flip(-1)
            by_scale.append(plain if flip == "none" else join[flip]([plain, mirrored]))
        torch.testing.assert_close(merged, join[merge](by_scale)[0], rtol=1e-4, atol=1e-5)


def test_image_and_mirror_image_are_one_batch_on_accelerators() -> None:
    """One after the other on CPUs, and without mirror images."""
    for device, flip, batches in (("meta", "sum", [4]), ("cpu", "sum", [2, 2]), ("meta", "none", [2])):
        convolution, seen = network().to(device), []

        def logits_of(views: Tensor, convolution: Callable = convolution, seen: list = seen) -> Tensor:
            seen.append(len(views))
            return convolution(views)

        views = SegmentViews(scales=[1.0], flip=flip)
        assert segment_logits(logits_of, torch.zeros(2, 3, 24, 32, device=device), (24, 32), views).shape[:2] == (2, 21)
        assert seen == batches


def test_masks_are_the_largest_logits_before_and_after_the_crf(images: ImageSet) -> None:
    """Palette PNGs of the images' sizes; the CRF, in processes of its own, sees the softmax over all labels."""
    config = settings(num_workers=1)
    folders = opened(images, config, crf=True)
    assert write_masks(network(), images, config, runtime(), folders) == 7
    assert folders.plain.path == Path("experiment/x/segs/all") and folders.final is folders.refined
    changed = 0
    for index, image_id in enumerate(images.ids):
        image = images.load_image(index)
        logits = segment_logits(network(), eval_transform(image)[None], image.size[::-1], config)[0]
        refined = dense_crf(np.array(image), logits.softmax(0).numpy(), config.crf).argmax(0)
        for folder, labels in ((folders.plain, logits.argmax(0).numpy()), (folders.refined, refined)):
            with Image.open(folder.file(image_id)) as mask:
                assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
                assert (np.array(mask) != labels).mean() < 1e-3
        changed += (refined != logits.argmax(0).numpy()).sum()
    assert changed > 0
    assert not list(Path("experiment").rglob("*.npy"))


def test_what_the_crf_sees_can_be_changed(images: ImageSet) -> None:
    """And is part of the settings, as its parameters are; what computes it is not."""
    config, run = settings(), RunFolder("x")
    folders = open_mask_folders(run, images, "x", config, WEIGHTS, runtime(), True, False, np.zeros_like)
    write_masks(network(), images, config, runtime(), folders)
    image = images.load_image(0)
    logits = segment_logits(network(), eval_transform(image)[None], image.size[::-1], config)[0]
    expected = dense_crf(np.zeros_like(np.array(image)), logits.softmax(0).numpy(), config.crf).argmax(0)
    assert (np.array(Image.open(folders.final.file(images.ids[0]))) != expected).mean() < 1e-3
    with pytest.raises(UserError, match="segs_crf/all holds masks of another checkpoint or other settings"):
        opened(images, config, crf=True)
    config.crf.backend = "lattice"
    open_mask_folders(run, images, "x", config, WEIGHTS, runtime(), True, False, np.zeros_like)
    config.crf.iterations = 9
    with pytest.raises(UserError, match="segs_crf/all holds masks"):
        open_mask_folders(run, images, "x", config, WEIGHTS, runtime(), True, False, np.zeros_like)


def test_only_what_is_missing_is_made_again(images: ImageSet) -> None:
    """The same bytes as before; neither the network nor the CRF sees the others."""
    config, seen = settings(), []
    logits_of = network()

    def counted(pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return logits_of(pixels)

    folders = opened(images, config, crf=True)
    assert write_masks(counted, images, config, runtime(), folders) == 7
    before = [contents(folder.path) for folder in (folders.plain, folders.refined)]
    seen.clear()
    assert write_masks(counted, images, config, runtime(), opened(images, config, crf=True)) == 0 and not seen
    gone = images.ids[1]
    folders.refined.file(gone).unlink()
    times = {path: path.stat().st_mtime_ns for path in folders.refined.path.iterdir()}
    assert write_masks(counted, images, config, runtime(), opened(images, config, crf=True)) == 2  # its batch
    assert sum(seen) == 2 * 2 * len(config.scales)
    assert [contents(folder.path) for folder in (folders.plain, folders.refined)] == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert write_masks(counted, images, config, runtime(), opened(images, config, crf=True, overwrite=True)) == 7


def test_masks_of_other_settings_are_not_mixed(images: ImageSet) -> None:
    """Until they are deleted on purpose. Other lists and runs have folders of their own."""
    config = settings()
    write_masks(network(), images, config, runtime(), opened(images, config))
    changes = ({"flip": "max"}, {"merge": "sum"}, {"resize": 32}, {"scales": [1.0]}, {"batch_size": 1})
    for change in changes:
        with pytest.raises(UserError, match=r"segs/all holds masks of another.*--overwrite.*another --name"):
            opened(images, settings(**change))
    with pytest.raises(UserError, match="segs/all holds masks"):
        opened(images, config, precision="bf16")
    assert len(contents("experiment/x/segs/all")) == 7
    opened(images, settings(flip="max"), name="y")
    opened(images, settings(flip="max"), overwrite=True)
    assert not contents("experiment/x/segs/all")


@pytest.mark.parametrize("world", [2, 3])
def test_processes_write_what_one_writes(images: ImageSet, world: int) -> None:
    config, done = settings(), 0
    write_masks(network(), images, config, runtime(), opened(images, config, "alone", crf=True))
    folders = opened(images, config, "shared", crf=True)
    for rank in range(world):
        done += write_masks(network(), images, config, runtime(rank, world), folders)
    assert done == 7
    for kind in ("segs", "segs_crf"):
        assert contents(f"experiment/shared/{kind}/all") == contents(f"experiment/alone/{kind}/all")


def test_scores_are_those_of_the_masks(images: ImageSet, capsys: pytest.CaptureFixture) -> None:
    """Before and after the CRF; with the true masks in place of the network's, 100 for the labels that are there."""
    config, run = settings(), RunFolder("x")
    folders = opened(images, config, crf=True)
    for index, image_id in enumerate(images.ids):
        size = images.load_image(index).size
        with Image.open(images.mask_path(image_id)) as mask:
            mask.resize(size, Image.Resampling.NEAREST).save(images.mask_path(image_id))
        with Image.open(images.mask_path(image_id)) as mask:
            mask.save(folders.plain.file(image_id))
            mask.point(lambda label: 0).save(folders.refined.file(image_id))
    report_masks(folders, images, run, runtime(), 0)
    shown = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("warning: labels that are")]
    assert shown[0].startswith(f"experiment/x/segs/all: {300 / 21:.2f} mIoU over the 7 images")  # three labels of 21
    assert "experiment/x/segs_crf/all: 4.28 mIoU" in shown[1]  # background alone
    written = {path.name for path in Path("experiment/x").glob("eval*")}
    assert written == {f"eval_png{stem}.{kind}" for stem in ("", "_crf") for kind in ("json", "csv")}


def test_images_can_be_scored_with_all_masks_or_none(images: ImageSet) -> None:
    """Some masks are a mistake."""
    assert has_masks(images)
    paths = [images.mask_path(image_id) for image_id in images.ids]
    paths[2].unlink()
    with pytest.raises(UserError, match=r"1 of the 7 masks of list .* are missing: .*000003\.png"):
        has_masks(images)
    for path in paths:
        path.unlink(missing_ok=True)
    assert not has_masks(images)


def test_jobs_are_bounded_and_an_error_reaches_the_caller(tmp_path: Path) -> None:
    """However fast the caller is; jobs before the failing one are done, and no more are taken."""
    with pytest.raises(ZeroDivisionError), WorkerPool(1, "test") as pool:
        for number in range(20):
            pool.submit(Path.touch, tmp_path / str(number))
            assert len(pool._pool._pending_work_items) <= 3
        pool.submit(divmod, 1, 0)
        while True:
            pool.submit(abs, 1)
    assert len(list(tmp_path.iterdir())) == 20


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(UserError, match="a test process died"), WorkerPool(1, "test") as pool:
        pool.submit(os.abort)
        while True:
            pool.submit(abs, 1)
