"""Stamps: kinds of score files are told apart, with a stamp or by their keys, by every reader."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import DataConfig, ImageSet
from common.data.masks import write_mask
from common.data.seeds import read_seed, seed_path, write_seed
from common.data.stamp import (
    MARGINALS,
    SEEDS,
    SHIFTED,
    STAMP_FILE,
    STRIDED_SEEDS,
    Kind,
    Stamp,
    kind_of_keys,
    read_stamp,
    require_kind,
    stamp_of,
)  # fmt: skip
from common.masks.from_seeds import require_maps
from common.masks.training import TrainingMasks
from common.run.errors import UserError
from common.score.trivial import TRIVIAL
from methods.irn.label_files import LabelFiles
from tests.datasets import call
from tests.helpers import evaluation_script, failure


@pytest.mark.parametrize(("keys", "classes", "kind"), [
    ([2, 7], [2, 7], SEEDS), ([0], [0], SEEDS), ([0, 1], [0, 1], SEEDS), ([2], [2, 7], SEEDS),
    ([0, 3, 8], [2, 7], MARGINALS), ([0, 1], [0], MARGINALS), ([0, 3], [2, 7], MARGINALS), ([0], [], MARGINALS),
    ([3, 8], [2, 7], SHIFTED), ([1], [0], SHIFTED), ([4], [2], None), ([], [2], None), ([5], [], None),
])  # fmt: skip
def test_keys_tell_the_kind(keys: list[int], classes: list[int], kind: Kind | None) -> None:
    assert kind_of_keys(keys, classes) is kind


@pytest.fixture
def folders(shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """In a run ``x``: seeds, and what has the form of their CRF marginals; without stamps. The images of val."""
    monkeypatch.chdir(tmp_path)
    images = ImageSet(DataConfig(root=str(shapes), classes=str(shapes / "classes.txt")), "val")
    for image_id in images.ids:
        seed = read_seed(seed_path(seeds, image_id))
        write_seed("experiment/x/dict", image_id, seed)
        background = 1 - np.max(list(seed.values()), axis=0)
        write_seed("experiment/x/crf/04", image_id, {0: background, **{key + 1: cam for key, cam in seed.items()}})
        write_seed("experiment/x/off", image_id, {key + 1: cam for key, cam in seed.items()})
    return images


def stamped(images: ImageSet) -> None:
    stamp_of(SEEDS, "cti", {"checkpoint": "a.pth"}, images).write(Path("experiment/x/dict"))
    stamp_of(MARGINALS, "cti", {"seeds": "experiment/x/dict"}, images).write(Path("experiment/x/crf/04"))


@pytest.mark.parametrize("has_stamp", [False, True])
def test_evaluation_refuses_another_kind(folders: ImageSet, has_stamp: bool) -> None:
    """Instead of a wrong score; the message has the right task, whose score comes."""
    script, common = evaluation_script(), ("--name", "x", "--list", "val", f"data.root={folders.root}",
                                           f"data.classes={folders.root}/classes.txt")  # fmt: skip
    if has_stamp:
        stamped(folders)
    for task, folder, right in (("cam", "crf/04", "crf"), ("crf", "dict", "cam"), ("dl", "dict", "cam")):
        with pytest.raises(UserError, match=rf"{folder} holds .*evaluation.py --task {right}"):
            script.main([*common, "--task", task, "--dict_dir", folder])
        script.main([*common, "--task", right, "--dict_dir", folder])
        result = json.loads(Path(f"experiment/x/eval_{right}.json").read_text())
        assert result["best"]["mIoU"] > 50
        assert not [text for text in result["warnings"] if not text.startswith("labels that are neither")]
    with pytest.raises(UserError, match=r"off holds seeds of another numbering \(key 1 is the first class"):
        script.main([*common, "--dict_dir", "off"])


def test_a_score_below_both_trivial_ones_is_doubted(folders: ImageSet, capsys: pytest.CaptureFixture) -> None:
    """In the JSON, too; the trivial scores are those of --trivial."""
    script = evaluation_script()
    common = ("--name", "x", "--list", "val", f"data.root={folders.root}", f"data.classes={folders.root}/classes.txt")
    for kind in TRIVIAL:
        script.main([*common, "--trivial", kind])
    trivial = [json.loads(Path(f"experiment/x/eval_trivial_{kind}.json").read_text()) for kind in TRIVIAL]
    for image_id in folders.ids:
        write_mask(f"experiment/x/wrong/{image_id}.png", (folders.load_mask(folders.ids.index(image_id)) + 1) % 7)
    capsys.readouterr()
    script.main([*common, "--task", "png", "--dict_dir", "wrong"])
    result = json.loads(Path("experiment/x/eval_png.json").read_text())
    assert list(result["trivial"].values()) == pytest.approx([scores["best"]["mIoU"] for scores in trivial])
    assert len(result["warnings"]) == 1 and "below both trivial predictions" in result["warnings"][0]
    assert f"warning: {result['warnings'][0]}" in capsys.readouterr().out


@pytest.mark.parametrize("has_stamp", [False, True])
def test_refinements_refuse_what_is_no_seed(
    folders: ImageSet, has_stamp: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """And name the seeds, where the stamp knows them."""
    if has_stamp:
        stamped(folders)
    data = (f"data.root={folders.root}", f"data.classes={folders.root}/classes.txt", "runtime.num_workers=0")
    given = ("--name", "m", "--exp", "crf_demo", "--infer_list", "val", "infer.eval_list=", *data)
    message = failure(capsys, call, monkeypatch, "crf_masks", *given, "--seeds", "experiment/x/crf/04")
    assert "experiment/x/crf/04 holds CRF marginals" in message and not Path("experiment/m").exists()
    assert ("--seeds experiment/x/dict" in message) == has_stamp
    with pytest.raises(UserError, match=r"dict holds seeds.*; CRF marginals .*make_crf"):
        require_maps(folders, Path("experiment/x/dict"), "make_crf", MARGINALS)
    require_maps(folders, Path("experiment/x/dict"), "", SEEDS, STRIDED_SEEDS)
    stamp_of(STRIDED_SEEDS, "crt", {}, folders).write(Path("experiment/x/dict"))
    require_maps(folders, Path("experiment/x/dict"), "", SEEDS, STRIDED_SEEDS)
    with pytest.raises(UserError, match="holds strided seeds"):
        require_maps(folders, Path("experiment/x/dict"), "the inference")


def test_trainings_and_pictures_refuse_another_kind(
    folders: ImageSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    stamped(folders)
    data = (f"data.root={folders.root}", f"data.classes={folders.root}/classes.txt")
    for function in (
        lambda: LabelFiles(folders, Path("experiment/x/dict")),
        lambda: TrainingMasks(folders, "experiment/x/dict", 7),
        lambda: call(monkeypatch, "show_seeds", "--name", "x", "--dict_dir", "crf/04", *data),
        lambda: call(monkeypatch, "show_masks", "--name", "x", *data, "--masks", "dict"),
    ):
        with pytest.raises(UserError, match=r"experiment/x/.* holds (seeds|CRF marginals)"):
            function()


def test_a_stamp_is_read_as_it_was_written(folders: ImageSet) -> None:
    """Lists add up; a damaged or foreign one is named."""
    folder = Path("experiment/x/dict")
    stamp = stamp_of(SEEDS, "cti", {"scales": (1.0, 0.5), 3: None}, folders)
    stamp.write(folder)
    content = json.loads((folder / STAMP_FILE).read_text())
    assert (content["kind"], content["first_class"], content["method"]) == ("seeds", 0, "cti")
    assert read_stamp(folder) == stamp and read_stamp("nowhere") is None
    assert stamp.joined(Stamp(SEEDS, "cti", {}, {"train": 4})).lists == {"train": 4, "val": 6}
    for text in (
        "{",
        "[]",
        "{}",
        '{"kind": "other"}',
        '{"kind": [], "method": 1, "settings": 3, "lists": 4}',
        "\udcff",
    ):
        (folder / STAMP_FILE).write_text(text, errors="surrogateescape")
        with pytest.raises(UserError, match=rf"{STAMP_FILE}"):
            require_kind(folder, SEEDS, lambda found, stamp: "")
