"""Images without labels: the numbers of the methods' own inference, given and predicted classes, files, bad input."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from common.data.dataset import class_names
from common.data.images import ImageRules
from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.seeds import read_seed
from common.pipeline.builders import PREDICTING, named
from common.predict.photos import Photos, find_photos, name_in_folder
from common.predict.predictor import Prediction, Predictor
from common.predict.presence import labels_in
from common.predict.results import class_rows
from common.run.config import load_config, save_config
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.run.weights import save_torch
from common.seeds.thresholds import best_threshold
from methods.toco import infer_seg
from tests.datasets import call, truncate, write_image
from tests.forks import run_together
from tests.helpers import Scripts, contents, evaluation_script

METHODS = {"cti": "CTI", "pcss": "PCSS", "dig": "DiG", "crt": "CRT", "toco": "ToCo", "deeplab": "DeepLab",
           "vitseg": "ViT segmenter"}  # fmt: skip
SEGMENTERS = ("toco", "deeplab", "vitseg")


def make_run(method: str, experiments: Path, name: str = "run") -> Path:
    """A run of random weights in the current folder; its file of weights."""
    kind = PREDICTING[METHODS[method]]
    config = load_config(named(kind.config), experiments / f"{method}.yaml")
    run = RunFolder(name)
    save_config(config, run.config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = named(kind.face).build(config, len(class_names(config.data)))
    weights = run.checkpoints / named(kind.file).format(7)
    save_torch(weights, model.state_dict())
    return weights


@pytest.fixture
def run(experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """CTI's run in the current folder; its file of weights."""
    monkeypatch.chdir(tmp_path)
    return make_run("cti", experiments)


def photos_of(shapes: Path, count: int = 6) -> list[Path]:
    """Validation images."""
    ids = read_list(shapes / "ImageSets" / "Segmentation" / "val.txt", "voc12")[:count]
    return [shapes / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]


def table(folder: str = "predictions/run") -> list[dict[str, str]]:
    """The rows of the table."""
    with Path(folder, "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", METHODS)
def test_predictions_are_those_of_the_methods_own_inference(
    method: str, experiments: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Bitwise: seeds of the labelled classes, or masks."""
    monkeypatch.chdir(tmp_path)
    weights = make_run(method, experiments)
    scripts = Scripts(monkeypatch, experiments / f"{method}.yaml", method)
    photos = photos_of(shapes)
    own = ("--load_pretrained", weights, "infer.eval_list=")
    if method in SEGMENTERS:
        assert (scripts.call(infer_seg, "own", *own) if method == "toco" else scripts.infer("own", *own[:2])) == 0
        assert call(monkeypatch, "predict", "--name", "run", *photos) == 0
        expected = contents("experiment/own/segs/val")
        assert contents("predictions/run/masks") == expected
        assert all(0 < float(row["score"]) <= 1 and int(row["pixels"]) > 0 for row in table() if row["class"])
        assert call(monkeypatch, "predict", "--name", "run", photos[0], "--classes", "star", "--out", "given") == 0
        assert {row["class"] for row in table("given")} <= {"star", ""}
        return
    assert scripts.infer("own", *own, "--dict") == 0
    seeds = {path.stem: read_seed(path) for path in Path("experiment/own/dict").glob("*.npy")}
    classes = (shapes / "classes.txt").read_text().split()
    lines = [f"{image_id},{';'.join(classes[key] for key in seed)}" for image_id, seed in seeds.items()]
    Path("labels.csv").write_text("\n".join(["id,label", *lines]))
    assert call(monkeypatch, "predict", "--name", "run", *photos, "--labels", "labels.csv", "--seeds") == 0
    assert contents("predictions/run/seeds") == contents("experiment/own/dict")
    assert sorted({row["class"] for row in table()}) == sorted(
        {classes[key] for seed in seeds.values() for key in seed}
    )


def test_a_folder_of_all_kinds_of_files(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What can be read is predicted at its size; the others are named; a second call finds the work done."""
    folder = Path("album")
    write_image(folder / "plain.jpg", (33, 50))
    write_image(folder / "sub" / "plain.jpg", (40, 28), 1)
    rgb = Image.open(folder / "plain.jpg").copy()
    for name, mode in {"grey.png": "L", "palette.png": "P", "alpha.png": "RGBA", "bits.png": "1"}.items():
        rgb.convert(mode).save(folder / name)
    rgb.convert("CMYK").save(folder / "print.tif")
    Image.new("I;16", (20, 20)).save(folder / "deep.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    shutil.copy(folder / "plain.jpg", folder / "broken.jpg")
    truncate(folder / "broken.jpg")
    (folder / "empty.png").touch()
    rgb.convert("P").save(folder / "moving.gif")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (folder / ".hidden.jpg").write_bytes(b"x")
    assert call(monkeypatch, "predict", "--name", "run", folder, "--classes", "all") == 1
    said = capsys.readouterr().out
    for words in (
        "dot.png is of 1x1 pixels", "broken.jpg cannot be decoded", "empty.png cannot be decoded: it is empty",
        "data.range", "2 files of album are no images by their suffix: album/film.mp4, album/moving.gif",
        "7 predictions written, 0 were there", "error: 4 images could not be read: broken, dot, empty, deep",
    ):  # fmt: skip
        assert words in said
    assert "check_data" not in said
    with pytest.raises(UserError, match=r"none of the 1 images can be read: moving\. Nothing is written"):
        call(monkeypatch, "predict", "--name", "run", folder / "moving.gif", "--out", "none")
    assert not Path("none").exists()
    masks = {path.stem: read_mask(path) for path in Path("predictions/run/masks").glob("*.png")}
    assert masks["plain"].shape == (33, 50) and masks["sub__plain"].shape == (40, 28)
    assert sorted(masks) == ["alpha", "bits", "grey", "palette", "plain", "print", "sub__plain"]
    assert len(table()) == 7 * len(Predictor.of_run("run").classes)
    before = contents("predictions/run/masks")
    assert call(monkeypatch, "predict", "--name", "run", folder, "--classes", "all") == 1
    assert "0 predictions written, 7 were there" in capsys.readouterr().out
    small = ("--out", "small", "--classes", "all", "infer.scales=[1.0,0.25]")
    assert call(monkeypatch, "predict", "--name", "run", folder / "grey.png", folder / "sub", *small) == 1
    said = capsys.readouterr().out
    assert (
        "28x40 pixels, too small for a network: each side needs at least 32. Leave" in said and "1 predictions" in said
    )
    deep = folder / "deep.png"
    assert call(monkeypatch, "predict", "--name", "run", deep, "--out", "deep", "data.range=[0,65535]") == 0
    assert contents("predictions/run/masks") == before


def test_a_call_goes_on_and_changed_settings_are_refused(
    run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    photos = photos_of(shapes, 3)
    assert call(monkeypatch, "predict", "--name", "run", photos[0], "--threshold", 0.3) == 0
    with pytest.raises(UserError, match="--threshold: it is 30; it must be finite and from 0 to below 1"):
        call(monkeypatch, "predict", "--name", "run", *photos, "--threshold", 30)
    assert call(monkeypatch, "predict", "--name", "run", *photos, "--threshold", 0.3, "--resume") == 0
    assert "2 predictions written, 1 were there" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"background was 0\.3, is 0\.5.*--overwrite.*another --out"):
        call(monkeypatch, "predict", "--name", "run", *photos, "--threshold", 0.5)
    assert call(monkeypatch, "predict", "--name", "run", photos[1], "--threshold", 0.5, "--overwrite") == 0
    assert [path.stem for path in Path("predictions/run/masks").glob("*.png")] == [photos[1].stem]
    assert {Path(row["image"]).stem for row in table()} == {photos[1].stem}
    manifest = json.loads(Path("predictions/run/manifest.json").read_text())
    assert manifest["method"] == "CTI" and len(manifest["sha256"]) == 64
    assert manifest["settings"]["background"] == 0.5 and manifest["configuration"]["model"]["depth"] == 4


def test_predictions_for_annotation_tools(run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """All masks of the folder, also those of earlier calls; COCO's are exact."""
    first, *others = photos_of(shapes, 3)
    assert call(monkeypatch, "predict", "--name", "run", first, "--classes", "all", "--threshold", 0.1) == 0
    formats = ("--format", "coco", "labelme", "yolo", "cvat")
    assert call(monkeypatch, "predict", "--name", "run", *others, "--classes=all", "--threshold", 0.1, *formats) == 0
    folder = Path("predictions/run")
    coco = COCO(folder / "coco" / "annotations.json")
    assert {image["file_name"] for image in coco.imgs.values()} == {path.name for path in (first, *others)}
    for number, image in coco.imgs.items():
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for found in coco.loadAnns(coco.getAnnIds(number)):
            mask += coco.annToMask(found) * np.uint8(found["category_id"])
        assert mask.any() and np.array_equal(mask, read_mask(folder / "masks" / f"{Path(image['file_name']).stem}.png"))
    assert len(list(folder.glob("labelme/*.json"))) == len(list(folder.glob("yolo/labels/*.txt"))) == 3
    assert (folder / "cvat" / "annotations.xml").is_file() and "written: " in capsys.readouterr().out


def test_two_processes_write_what_one_does(run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--name", "run", *photos_of(shapes), "--classes", "all", "--out")
    assert call(monkeypatch, "predict", *arguments, "one") == 0
    run_together(lambda: call(monkeypatch, "predict", *arguments, "two"))
    assert contents("one/masks") == contents("two/masks")
    assert Path("one/predictions.csv").read_text() == Path("two/predictions.csv").read_text()


def test_predictor_in_a_program(run: Path, shapes: Path) -> None:
    """A run or a file of weights; the classes of the network's choice, or given ones."""
    photo = photos_of(shapes, 1)[0]
    predictor = Predictor.of_run("run", ["runtime.device=cpu"], threshold=0.2)
    both = predictor(photo, predictor.classes[:2])
    assert list(both.scores) == predictor.classes[:2] and set(np.unique(both.mask)) <= {0, 1, 2}
    assert both.mask.shape == Image.open(photo).size[::-1] and sorted(both.seed) == [0, 1]
    other = Predictor.of_weights(run, "experiment/run/config.yaml", threshold=0.2)(photo, predictor.classes[:2])
    assert np.array_equal(other.mask, both.mask)
    assert set(predictor(photo).scores) == {
        name for name, score in predictor(photo, ["all"]).scores.items() if score >= 0.5
    }
    with pytest.raises(UserError, match=r"'stars' is no class of this network\. Did you mean star"):
        predictor(photo, ["stars"])
    with pytest.raises(UserError, match="names no class"):
        predictor(photo, [])
    with pytest.raises(UserError, match="no image or folder"):
        predictor("lost.jpg")
    with pytest.raises(UserError, match="is a folder"):
        predictor(photo.parent)


def test_thresholds_of_a_validation_are_used(
    experiments: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Training stores them for the best weights and the epoch's file, --tune_on the same; other weights have none."""
    monkeypatch.chdir(tmp_path)
    assert Scripts(monkeypatch, experiments / "cti.yaml").train("run", "train.epochs=1", "train.validate_from=0") == 0
    path = RunFolder("run").checkpoints / "classes.json"
    stored = json.loads(path.read_text())
    assert sorted(stored) == ["000net_trm.pth", "best.pth"] and stored["best.pth"] == stored["000net_trm.pth"]
    entry = stored["best.pth"]
    assert [row["name"] for row in entry["classes"]] == (shapes / "classes.txt").read_text().split()
    assert entry["list"] == "val" and entry["images"] == 6 and 0 < entry["mean_f1"] <= 1
    photo = photos_of(shapes, 1)[0]
    config = RunFolder("run").config
    config.write_text(
        f"method: CTI\n{config.read_text()}" if "method:" not in config.read_text() else config.read_text()
    )
    predictor = Predictor.of_run("run")
    assert predictor.threshold == entry["background"]["threshold"]
    limits = [row.get("threshold", 0.5) for row in entry["classes"]]
    scores = predictor(photo, ["all"]).scores
    assert list(predictor(photo).scores) == [
        name for name, limit in zip(scores, limits, strict=True) if scores[name] >= limit
    ]
    path.unlink()
    assert "has no classes.json of these weights" in " ".join(Predictor.of_run("run").notes(False))
    assert call(monkeypatch, "predict", "--name", "run", "--tune_on", "val", "--score_on", "val") == 0
    said = re.search(
        r"list 'val': class F1 (\S+); (\S+) mIoU, (\S+) with the labelled classes", capsys.readouterr().out
    )
    assert said and 0 < float(said[1]) <= 1 and float(said[2]) > 0
    assert said[3] == f"{entry['background']['mIoU']:.1f}"  # as the seeds at that threshold
    assert json.loads(path.read_text()) == {"best.pth": entry}
    scripts = Scripts(monkeypatch, experiments / "cti.yaml")
    assert scripts.infer("run", "--dict", "infer.eval_list=") == 0
    lists = ("--list", "val", "--tune_on", shapes / "ImageSets" / "Segmentation" / "val.txt")
    evaluation_script().main(["--name", "run", "--dict_dir", "dict", *map(str, lists)])
    assert "for scripts/predict.py" in capsys.readouterr().out
    again = json.loads(path.read_text())["best.pth"]
    assert again["background"]["list"].endswith("val.txt") and again["classes"] == entry["classes"]
    assert again["background"]["threshold"] == entry["background"]["threshold"]
    make_run("cti", experiments, "other").rename("other.pth")
    shutil.copy(path, "classes.json")
    assert Predictor.of_weights("other.pth", str(config)).tuned is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]) | st.floats(0, 1), st.booleans()), min_size=1, max_size=9
    )
)
def test_thresholds_have_the_best_f1(images: list[tuple[float, bool]]) -> None:
    """Against all cuts; the F1 that is told is that of the threshold."""
    scores, truth = (np.array(part) for part in zip(*images, strict=True))

    def f1(limit: float) -> float:
        chosen = scores >= limit
        return 2 * (chosen & truth).sum() / (chosen.sum() + truth.sum())

    threshold, found = best_threshold(scores.astype(float), truth)
    assert 0 <= threshold <= 1
    if truth.any():
        assert found == pytest.approx(max(map(f1, scores))) and f1(threshold) == pytest.approx(found)


MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16",
    "I;16B",
)  # fmt: skip
KINDS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "ICO", "TGA", "JPEG2000", "PCX")


def photo(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """Noise in one of Pillow's modes; some are reached from others alone."""
    before = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, "L" if mode.startswith("I;") else "RGB")
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    return noise.convert(before).convert(mode)


def can_save(mode: str, kind: str) -> bool:
    """Whether Pillow writes the mode in the format."""
    try:
        photo(mode, (20, 20), 0).save(io.BytesIO(), format=kind)
    except (OSError, ValueError, KeyError):
        return False
    return True


WRITABLE = [(mode, kind) for mode in MODES for kind in KINDS if can_save(mode, kind)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder."""
    return tmp_path_factory.mktemp("modes")


@settings(max_examples=120, deadline=None)
@given(
    form=st.sampled_from(WRITABLE), size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 99),
    suffix=st.sampled_from([".png", ".jpg", ".mp4", ""]),
)  # fmt: skip
def test_any_mode_and_format_is_read_or_named(
    place: Path, form: tuple[str, str], size: tuple[int, int], seed: int, suffix: str
) -> None:
    """The image itself, at its size, whatever the suffix; or one line that names the file and what to do."""
    mode, kind = form
    path, made = place / f"photo{suffix}", photo(mode, size, seed)
    made.save(path, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    photos = Photos(["photo"], [path], [], ImageRules())
    problem = photos.unreadable().get(0, "")
    try:
        read = photos.load_image(0)
    except UserError as error:
        problem = problem or str(error)
    if problem:
        assert str(path) in problem and "\n" not in problem
        return
    assert read.mode == "RGB" and read.size == size
    if kind in ("PNG", "BMP", "TIFF", "WEBP") and mode in ("L", "1", "RGB"):
        assert np.array_equal(np.asarray(read), np.asarray(made.convert("RGB")))


def test_ids_of_photos(tmp_path: Path) -> None:
    """Suffixes where they tell images apart; two folders with one name are refused; so is nothing at all."""
    for name in ("a/x.jpg", "a/x.png", "a/in/y.JPG", "b/x.jpg", "empty/notes.txt", "a/._x.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("a/out/records/x.json", "a/out/masks/stamp.json", "a/out/masks/x.png", "a/out/overlays/x.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b", target_is_directory=True)
    found, notes = find_photos([tmp_path / "a", tmp_path / "a" / "x.jpg", tmp_path / "empty"])
    assert list(found) == ["in__y", "x.jpg", "x.png"] and len(notes) == 4
    assert notes[0] == f"{tmp_path / 'a' / 'out'} holds predictions and is left out" and "a/link" in notes[1]
    names = {image_id: name_in_folder(image_id, path) for image_id, path in found.items()}
    assert names == {"in__y": "in/y.JPG", "x.jpg": "x.jpg", "x.png": "x.png"}
    assert name_in_folder("a__b", tmp_path / "a" / "a__b.png") == "a__b.png"
    (tmp_path / "labels.csv").write_text("id,label\nx,cat\ny,\nin__x,dog")
    files = {"x": tmp_path / "a" / "x.jpg", "in__x": tmp_path / "a" / "in" / "x.jpg", "in__y": found["in__y"]}
    assert labels_in(tmp_path / "labels.csv", files, ["cat", "dog"]).tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(UserError, match=r"the row 'x' may mean .*x\.jpg, .*out/x\.jpg\. .* 'out__x'"):
        labels_in(tmp_path / "labels.csv", {**files, "out__x": tmp_path / "out" / "x.jpg"}, ["cat", "dog"])
    with pytest.raises(UserError, match="have the same name"):
        find_photos([tmp_path / "a" / "x.jpg", tmp_path / "b"])
    (tmp_path / "b" / "\udcff.jpg").touch()
    with pytest.raises(UserError, match=r"names of 1 images are no text in UTF-8: .*\\udcff\.jpg"):
        find_photos([tmp_path / "b"])
    with pytest.raises(UserError, match=r"nothing to predict: .* has no image"):
        find_photos([tmp_path / "empty"])


def test_rows_of_an_image() -> None:
    """The box is that of the largest part, not of all."""
    mask = np.zeros((10, 12), np.uint8)
    mask[1:3, 1:3] = mask[5:9, 4:10] = 2
    dog, cat = class_rows(Prediction("x", Path("x"), mask, {"dog": 0.12344, "cat": 0.9}), ["cat", "dog"])
    assert dog == {"class": "dog", "score": 0.1234, "pixels": 28, "left": 4, "top": 5, "width": 6, "height": 4}
    assert cat == {"class": "cat", "score": 0.9, "pixels": 0, "left": "", "top": "", "width": "", "height": ""}
