"""Fixtures of the whole suite."""

import copy
import functools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.seeds import write_seed
from common.run import config
from common.train.watch import ProgressLine
from methods.dig.config import UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import save_diffusion
from methods.dig.unet import UNet
from tests.datasets import call
from tests.experiments import TINY_OF, write_experiment
from tests.helpers import Scripts


@pytest.fixture(scope="session", autouse=True)
def each_yaml_is_parsed_once() -> Iterator[None]:
    """A thousand runs read the same few experiments, each several times."""
    parsed = functools.lru_cache(500)(config.parse_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "parse_yaml", lambda text, texts=(): copy.deepcopy(parsed(text, tuple(texts))))
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 24 training and 6 validation images of about 48 pixels; not to be changed."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ("--train", 24, "--val", 6, "--size", 48, "--workers", 2)
        assert call(patch, "make_shapes", "--root", root, *arguments) == 0
    return root


@pytest.fixture(scope="session")
def cub_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in CUB's layout of 24 training and 12 test images of at most 48 pixels; not to be changed."""
    root = tmp_path_factory.mktemp("data") / "cub_shapes"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ("--train", 24, "--test", 12, "--size", 48, "--workers", 2)
        assert call(patch, "make_cub_shapes", "--root", root, *arguments) == 0
    return root


@pytest.fixture
def own_data(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    shutil.copytree(shapes, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="session")
def seeds(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds like the CAMs of a fair classifier: the true masks, blurred; train's in one format, val's in the other.

    Not to be changed.
    """
    folder = tmp_path_factory.mktemp("seeds") / "dict"
    for split, fmt in (("train", "npy"), ("val", "npz")):
        for image_id in read_list(shapes / "ImageSets" / "Segmentation" / f"{split}.txt", "voc12"):
            mask = read_mask(shapes / "SegmentationClass" / f"{image_id}.png")
            cams = {
                int(label) - 1: cv2.GaussianBlur((mask == label).astype(np.float32), (0, 0), 3)
                for label in np.unique(mask) if label not in (0, 255)
            }  # fmt: skip
            write_seed(folder, image_id, {key: cam / cam.max() for key, cam in cams.items()}, fmt, stride=1)
    return folder


@pytest.fixture(scope="session")
def diffusion_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of DiG's tiny experiment after step 7, with random weights; not to be changed."""
    path = tmp_path_factory.mktemp("diffusion") / "tiny.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_diffusion(path, GaussianDiffusion(UNet(UNetConfig(**TINY_OF["dig"]["unet"]))), 7)
    return path


@pytest.fixture(scope="session")
def experiments(shapes: Path, cub_shapes: Path, diffusion_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the YAMLs of all tiny experiments, by method."""
    folder = tmp_path_factory.mktemp("experiments")
    diffusion = {"diffusion": {**TINY_OF["dig"]["diffusion"], "file": str(diffusion_file)}}
    for method in TINY_OF:
        data, sections = cub_shapes if method == "wsol" else shapes, diffusion if method == "dig" else {}
        write_experiment(folder / f"{method}.yaml", data, method, **sections)
    return folder


@pytest.fixture(scope="session")
def experiment(experiments: Path) -> Path:
    """The YAML of CTI's tiny experiment."""
    return experiments / "cti.yaml"


@pytest.fixture(scope="session")
def pcss_experiment(experiments: Path) -> Path:
    """The YAML of PCSS's."""
    return experiments / "pcss.yaml"


@pytest.fixture(scope="session")
def dig_experiment(experiments: Path) -> Path:
    """The YAML of DiG's classifier."""
    return experiments / "dig.yaml"


@pytest.fixture(scope="session")
def toco_experiment(experiments: Path) -> Path:
    """The YAML of ToCo's."""
    return experiments / "toco.yaml"


@pytest.fixture(scope="session")
def crt_experiment(experiments: Path) -> Path:
    """The YAML of CRT's."""
    return experiments / "crt.yaml"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny networks are many times faster without a team of threads, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Path) -> Scripts:
    """CTI's scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, experiment)


@pytest.fixture
def pcss_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pcss_experiment: Path) -> Scripts:
    """PCSS's scripts, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, pcss_experiment, "pcss")


@pytest.fixture
def dig_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dig_experiment: Path) -> Scripts:
    """The scripts of DiG's classifier, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, dig_experiment, "dig")


@pytest.fixture
def toco_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toco_experiment: Path) -> Scripts:
    """ToCo's training and its inference of seeds, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, toco_experiment, "toco")


@pytest.fixture
def crt_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crt_experiment: Path) -> Scripts:
    """The scripts of CRT's classifier, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Scripts(monkeypatch, crt_experiment, "crt")


@pytest.fixture(scope="session")
def checkpoint(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch file of CTI's tiny network."""
    folder = tmp_path_factory.mktemp("checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert Scripts(patch, experiment).train("run", "train.epochs=1") == 0
    return folder / "experiment" / "run" / "ckpt" / "000net_trm.pth"


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has this process get SIGTERM during the n-th step of the next training; 0: not at all."""
    advance, left = ProgressLine.advance, [0]

    def count(line: ProgressLine) -> None:
        advance(line)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProgressLine, "advance", count)
    return lambda step: left.__setitem__(0, step)
