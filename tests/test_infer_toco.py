"""ToCo's two inference scripts: masks with CRF and submission, seeds of three kinds."""

import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from common.data.masks import write_mask
from common.data.seeds import read_seed
from common.run.config import load_config
from common.run.errors import UserError
from common.run.weights import save_torch
from methods.toco import infer_cam, infer_seg
from methods.toco.config import WEIGHTS_FILE, ToCoConfig
from methods.toco.model import ToCo
from tests.experiments import TINY
from tests.helpers import contents

Call = Callable[..., int]
RUN = Path("experiment/x")


@pytest.fixture(scope="module")
def made(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the YAML of a tiny experiment and the weights of two iterations, in a run "x"."""
    folder, places = tmp_path_factory.mktemp("toco"), {"classes": str(shapes / "classes.txt")}
    content = {
        "data": {"dataset": "voc12", "root": str(shapes), **places, "labels": str(shapes / "Annotations")},
        "model": {**TINY["model"], "drop_path": 0.0, "aux_layer": -2},
        "infer": {
            **TINY["infer"], "cam_size": 32,
            "segment": {"image_list": "val", "num_workers": 0, "scales": [1.0, 1.5], "batch_size": 2},
        },
        "runtime": TINY["runtime"],
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    config = load_config(ToCoConfig, folder / "tiny.yaml")
    classes = len((shapes / "classes.txt").read_text().split())
    for iteration in (4, 12):
        torch.manual_seed(iteration)
        save_torch(folder / RUN / "ckpt" / WEIGHTS_FILE.format(iteration), ToCo(config.model, classes).state_dict())
    return folder


@pytest.fixture
def call(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Call:
    """Runs a script in a copy of that folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "experiment", tmp_path / "experiment")

    def run(script: ModuleType, *arguments: object) -> int:
        command = [script.__name__, "--name", "x", "--exp", made / "tiny.yaml", *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        return script.main() or 0

    return run


def test_masks_scores_and_submission(call: Call, capsys: pytest.CaptureFixture) -> None:
    """Before and after the CRF, of the last iteration; a second call finds them; the refined ones are packed."""
    assert call(infer_seg, "--crf", "--submission") == 0
    shown = capsys.readouterr().out
    assert "model_iter_12.pth" in shown and "segs_crf/val: 6 masks written, 0 were there" in shown
    assert f"{RUN}/segs/val: " in shown and f"{RUN}/segs_crf/val: " in shown
    assert shown.count("mIoU over the 6 images") == 2
    before = [contents(RUN / kind / "val") for kind in ("segs", "segs_crf")]
    assert before[0].keys() == before[1].keys() and len(before[0]) == 6
    written = {path.name for path in RUN.iterdir()}
    stems = {f"eval_png{crf}.{kind}" for crf in ("", "_crf") for kind in ("json", "csv")}
    assert written == {"ckpt", "config.yaml", "segs", "segs_crf", "comp6_val.tar", *stems}
    with tarfile.open(RUN / "comp6_val.tar") as tar:
        packed = {Path(name).name: tar.extractfile(name).read() for name in tar.getnames()}
    assert packed == before[1]
    assert call(infer_seg, "--crf", "--comp5") == 0
    assert "0 masks written, 6 were there" in capsys.readouterr().out and (RUN / "comp5_val.tar").is_file()
    with pytest.raises(UserError, match="holds masks of another checkpoint"):
        call(infer_seg, "--crf", "--load_epo", 4)
    assert call(infer_seg, "--load_epo", 4, "--overwrite") == 0
    assert contents(RUN / "segs/val") != before[0] and contents(RUN / "segs_crf/val") == before[1]


def test_images_without_masks_and_labels(call: Call, own_data: Path, capsys: pytest.CaptureFixture) -> None:
    """As those of VOC test: masks and archive, but no scores."""
    shutil.rmtree(own_data / "SegmentationClass")
    shutil.rmtree(own_data / "Annotations")
    where = (f"data.root={own_data}", f"data.labels={own_data / 'Annotations'}", "--infer_set", "val")
    assert call(infer_seg, *where, "--submission") == 0
    assert "not scored: no masks of 'val'" in capsys.readouterr().out
    assert (RUN / "comp6_val.tar").is_file() and not list(RUN.glob("eval*"))


def test_what_the_segmentation_refuses(call: Call, own_data: Path) -> None:
    """Before any image is segmented."""
    with pytest.raises(UserError, match="--submission is for VOC's server; the data set is folder"):
        call(infer_seg, "--submission", "data.dataset=folder")
    with pytest.raises(UserError, match=r"no checkpoint .*model_iter_7\.pth\. There are iterations 4 to 12\."):
        call(infer_seg, "--load_epo", 7)
    next((own_data / "SegmentationClass").glob("2027*")).unlink()
    with pytest.raises(UserError, match="1 of the 6 masks of list 'val' are missing"):
        call(infer_seg, f"data.root={own_data}")
    with pytest.raises(UserError, match="does not fit this model"):
        (own_data / "classes.txt").write_text("one\ntwo\n")
        call(infer_seg, f"data.classes={own_data / 'classes.txt'}")
    assert {path.name for path in RUN.iterdir()} == {"ckpt"}


def test_masks_of_another_size_are_not_submitted(call: Call) -> None:
    """The run ends with an error that names them; the masks stay."""
    assert call(infer_seg) == 0
    path = next((RUN / "segs/val").glob("*.png"))
    write_mask(path, np.zeros((3, 3), np.uint8))
    for picture in RUN.glob("eval*"):
        picture.unlink()
    with pytest.raises(UserError, match=f"{path.stem}"):
        call(infer_seg, "--submission")
    assert not list(RUN.glob("*.tar")) and len(contents(RUN / "segs/val")) == 6


def test_seeds_of_three_kinds(call: Call, shapes: Path, capsys: pytest.CaptureFixture) -> None:
    """Of the images' sizes and labels; scored; not mixed. Without --dict only the score is written."""
    seeds = {}
    for kind in ("cam", "cam_aux", "seg"):
        assert call(infer_cam, "--dict", "--dict_dir", kind, f"infer.seed_map={kind}") == 0
        seeds[kind] = {path.stem: read_seed(path) for path in (RUN / kind).glob("*.npy")}
        assert "6 seeds written" in capsys.readouterr().out and (RUN / "eval_cam.json").is_file()
        for image_id, seed in seeds[kind].items():
            with Image.open(shapes / "JPEGImages" / f"{image_id}.jpg") as image:
                assert all(cam.shape == image.size[::-1] and cam.min() >= 0 and cam.max() <= 1 for cam in seed.values())
    keys = [{image_id: list(seed) for image_id, seed in own.items()} for own in seeds.values()]
    assert keys[0] == keys[1] == keys[2]
    assert (
        len({b"".join(cam.tobytes() for seed in own.values() for cam in seed.values()) for own in seeds.values()}) == 3
    )
    with pytest.raises(UserError, match="holds seeds of another checkpoint"):
        call(infer_cam, "--dict", "--dict_dir", "seg", "infer.seed_map=cam")
    from_files = (RUN / "eval_cam.csv").read_bytes()
    assert call(infer_cam, "infer.seed_map=seg") == 0
    assert (RUN / "eval_cam.csv").read_bytes() == from_files


@pytest.mark.parametrize(("script", "absent"), [(infer_cam, "infer.segment."), (infer_seg, "infer.seed_map")])
def test_help_is_that_of_the_script(call: Call, script: ModuleType, absent: str, capsys) -> None:
    """Flags and keys that the other script reads are not shown."""
    with pytest.raises(SystemExit):
        call(script, "--help")
    shown = capsys.readouterr().out
    assert absent not in shown and "model.aux_layer=" in shown and "--load_epo" in shown and "loss.ptc" not in shown
    assert ("--infer_set" in shown) == (script is infer_seg) == ("infer.segment.crf.bilateral_sxy=121.0" in shown)
