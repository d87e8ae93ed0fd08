"""CRT's inference script: two folders of maps, restart, refusals, what later stages read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.dataset import LabelledImages
from common.data.outputs import write_each
from common.data.seeds import read_seed
from common.data.stamp import SEEDS, STRIDED_SEEDS, stamp_of
from common.run.config import load_config
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.processes import Processes
from common.run.weights import save_torch
from common.seeds.infer import SeedFolder
from methods.crt.cams import crt_cams
from methods.crt.config import CRTConfig
from methods.crt.model import CRT, tiled_deit
from methods.crt.seeds import CAMFolders, StridedFolder, seed_pairs
from methods.irn.walk import read_grid_maps
from tests.helpers import Scripts, contents

RUN = Path("experiment/x")
IDS = {f"2027_{number:06d}" for number in range(1, 7)}


@pytest.fixture(scope="module")
def networks(crt_experiment: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks' weights in the two forms that are read: ``joint.pth`` and ``deits_cam.pth``."""
    folder, classes = tmp_path_factory.mktemp("crt"), len((shapes / "classes.txt").read_text().split())
    torch.manual_seed(3)
    model = CRT(load_config(CRTConfig, crt_experiment).model, classes)
    save_torch(folder / "joint.pth", model.state_dict())
    save_torch(folder / "deits_cam.pth", model.deit.state_dict())
    return folder


def test_two_folders_of_each_image(
    crt_scripts: Scripts, networks: Path, crt_experiment: Path, shapes: Path, capsys: pytest.CaptureFixture
) -> None:
    """At the image's size and a quarter of it, from either file of weights; scored, drawn and refined at the first."""
    assert crt_scripts.infer("x", "--load_pretrained", networks / "deits_cam.pth", "--dict", "--vis", "--crf") == 0
    shown = capsys.readouterr().out
    assert "dict, experiment/x/cam: 6 seeds written, 0 were there" in shown and "mIoU at threshold 0.15" in shown
    folders = {"dict", "cam", "vis", "crf", "config.yaml"}
    assert {path.name for path in RUN.iterdir()} == folders | {f"eval_cam.{kind}" for kind in ("json", "csv", "png")}
    for part in ("vis/*.png", "crf/06/*.npy"):
        assert {path.stem for path in RUN.glob(part)} == IDS
    config = load_config(CRTConfig, crt_experiment)
    images = LabelledImages(config.data, "val")
    model = CRT(config.model, len(images.classes)).eval()
    model.load_state_dict(torch.load(networks / "joint.pth", weights_only=True))
    for index, image_id in enumerate(images.ids):
        seed, strided = (read_seed(RUN / folder / f"{image_id}.npy") for folder in ("dict", "cam"))
        views, label = config.infer.transform()(images.load_image(index)), torch.from_numpy(images.labels[index])
        (expected,) = crt_cams(model.deit, [view[None] for view in views], label[None], config.infer)
        assert list(seed) == list(strided) == label.nonzero().flatten().tolist()
        np.testing.assert_allclose(np.stack(list(seed.values())), expected.high_res, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(np.stack(list(strided.values())), expected.strided, rtol=1e-3, atol=1e-5)
        size = tuple(views[0].shape[1:])
        keys, scores = read_grid_maps(RUN / "cam", image_id, size, len(images.classes))
        assert keys == list(seed) and scores.shape[1:] == tuple(-(-side // 4) for side in size)
    assert crt_scripts.infer("joint", "--load_pretrained", networks / "joint.pth", "--dict") == 0
    assert all(contents(f"experiment/joint/{folder}") == contents(RUN / folder) for folder in ("dict", "cam"))


def test_only_what_is_missing_is_made_again(crt_scripts: Scripts, networks: Path, capsys) -> None:
    """In either folder; other settings are refused, and go elsewhere or anew."""
    arguments = ("x", "--load_pretrained", networks / "joint.pth", "--dict")
    assert crt_scripts.infer(*arguments) == 0
    before = [contents(RUN / folder) for folder in ("dict", "cam")]
    times = {path: path.stat().st_mtime_ns for folder in ("dict", "cam") for path in (RUN / folder).iterdir()}
    first, second = sorted(IDS)[:2]
    (RUN / "dict" / f"{first}.npy").unlink()
    (RUN / "cam" / f"{second}.npy").unlink()
    capsys.readouterr()
    assert crt_scripts.infer(*arguments) == 0
    assert "2 seeds written, 4 were there" in capsys.readouterr().out
    assert [contents(RUN / folder) for folder in ("dict", "cam")] == before
    changed = {path.stem for path, modified in times.items() if path.stat().st_mtime_ns != modified}
    assert changed == {first, second}
    for change in ("infer.scales=[1]", "infer.tiles=3"):
        with pytest.raises(UserError, match="dict holds seeds of another checkpoint or other settings"):
            crt_scripts.infer(*arguments, change)
    assert crt_scripts.infer(*arguments, "infer.scales=[1]", "--dict_dir", "other") == 0
    assert contents(RUN / "other").keys() == contents(RUN / "other_cam").keys() == before[0].keys()
    assert contents(RUN / "other") != before[0] and contents(RUN / "dict") == before[0]
    assert crt_scripts.infer(*arguments, "infer.scales=[1]", "--overwrite") == 0
    assert contents(RUN / "dict") == contents(RUN / "other") and contents(RUN / "cam") == contents(RUN / "other_cam")


def test_compact_files_keep_the_strided_maps_as_they_are(crt_scripts: Scripts, networks: Path, shapes: Path) -> None:
    """But for float16; seeds are at a reduced size as in every method."""
    for fmt in ("npy", "npz"):
        arguments = ("--dict", "infer.eval_list=", "--dict_dir", fmt, f"infer.format={fmt}")
        assert crt_scripts.infer("x", "--load_pretrained", networks / "joint.pth", *arguments) == 0
    for image_id in IDS:
        exact, compact = (read_seed(RUN / f"{fmt}_cam" / f"{image_id}.{fmt}") for fmt in ("npy", "npz"))
        for key, cam in exact.items():
            np.testing.assert_allclose(compact[key], cam, atol=1e-3)
        with Image.open(shapes / "JPEGImages" / f"{image_id}.jpg") as image:
            assert all(cam.shape == image.size[::-1] for cam in read_seed(RUN / "npz" / f"{image_id}.npz").values())


def test_the_score_alone(crt_scripts: Scripts, networks: Path) -> None:
    """Nothing else is written, and it is that of the files."""
    arguments = ("--load_pretrained", networks / "joint.pth")
    assert crt_scripts.infer("files", *arguments, "--dict") == 0 and crt_scripts.infer("x", *arguments) == 0
    assert (RUN / "eval_cam.csv").read_bytes() == Path("experiment/files/eval_cam.csv").read_bytes()
    assert {path.suffix for path in RUN.iterdir()} == {".yaml", ".json", ".csv", ".png"}


class Shard(Processes):
    """One of two processes that runs without the other."""

    def barrier(self) -> None:
        """Nobody to wait for."""

    def gather_objects(self, value: int) -> list[int]:
        """Its own."""
        return [value]


def test_processes_share_the_images(
    crt_scripts: Scripts, networks: Path, crt_experiment: Path, one_thread: None
) -> None:
    """Two write what one writes, bitwise, from images in batches."""
    assert crt_scripts.infer("x", "--load_pretrained", networks / "joint.pth", "--dict", "infer.batch_size=2") == 0
    config = load_config(CRTConfig, crt_experiment, ["infer.batch_size=2"])
    images, counts = LabelledImages(config.data, "val"), []
    model = tiled_deit(config.model, len(images.classes)).eval()
    model.load_state_dict(torch.load(networks / "deits_cam.pth", weights_only=True))
    for rank in (0, 1):
        runtime = Runtime(config.runtime, Shard(rank, 0, 2))
        stamps = [stamp_of(kind, "crt", {}, images) for kind in (SEEDS, STRIDED_SEEDS)]
        folders = CAMFolders(SeedFolder(Path("two/dict"), stamps[0], config.infer, runtime),
                             StridedFolder(Path("two/cam"), stamps[1], config.infer, runtime))  # fmt: skip
        pairs = seed_pairs(model, images, config.infer, runtime, folders.is_done)
        counts.append(write_each(images, folders, pairs, runtime.processes))
    assert sum(counts) == 6 and all(counts)
    assert all(contents(Path("two") / folder) == contents(RUN / folder) for folder in ("dict", "cam"))
