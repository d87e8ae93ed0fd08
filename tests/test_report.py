"""The report of a run: exact labels at every threshold, one safe file, bad input, and the server."""

import base64
import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.data.dataset import read_mask
from common.data.seeds import read_seed
from common.report.facts import histories, published, published_curves
from common.report.packed import Packed, unpacked
from common.report.page import Images, chosen, content, page, with_pictures
from common.report.pictures import plane, seed_planes, smooth_plane
from common.report.serve import ReportServer
from common.report.source import ScoredRun, UnscoredRun
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.score.bins import ThresholdBins
from common.visual import seed_labels
from tests.datasets import call
from tests.helpers import evaluation_script
from tests.reports import data_of, picture_at, pixels, plane_of, scored_run, smooth_plane_of


@pytest.fixture(scope="module")
def place(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two scored runs of the validation images; not to be changed."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        scored_run(shapes, "one")
        scored_run(shapes, "two", seed=1)
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_the_maps_give_the_labels_of_every_threshold() -> None:
    """Foreground where more thresholds lie below the value than come before the one in question; ties as scored."""
    rng = np.random.default_rng(0)
    thresholds = np.round(np.arange(100) / 100, 10).astype(np.float32)
    seed = {key: rng.choice(np.r_[thresholds, np.float32([0, 1])], (17, 23)) for key in (1, 4)}
    found = seed_planes(seed, ThresholdBins(thresholds), (17, 23))
    number, label = smooth_plane_of(found["number"]), plane_of(found["label"])
    for index, threshold in enumerate(thresholds):
        drawn = np.where(number > index, label, 0)
        assert (drawn == seed_labels(seed, float(threshold), (17, 23))).all()
    labels = rng.integers(0, 256, (17, 23)).astype(np.uint8)
    assert (plane_of(plane(labels)) == labels).all() and (smooth_plane_of(smooth_plane(labels)) == labels).all()
    empty = seed_planes({}, ThresholdBins(thresholds), (3, 4))
    assert not plane_of(empty["number"]).any() and not plane_of(empty["label"]).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.just(bytes(range(256)))))
def test_bytes_come_back_from_the_page(contents: list[bytes]) -> None:
    """Nothing in them can end or change the element that holds them."""
    packed = Packed()
    places = [packed.add(content) for content in contents]
    whole = packed.content()
    assert not set(b"\x00\r<") & set(whole)
    assert [unpacked(whole, place) for place in places] == contents


def test_a_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One file with all that the evaluation knows, which asks for nothing outside itself."""
    evaluation_script().main(["--name", "one", "--trivial", "background", "--list", "val", "--card"])
    assert call(monkeypatch, "report", "--name", "one", "--against", "two") == 0
    assert "6 images" in capsys.readouterr().out
    html = Path("experiment/one/report.html").read_bytes()
    assert b"default-src 'none'" in html and not re.search(rb"""(?:src|href)=["']?(?:https?:)?//""", html)
    own = html.partition(b'id="pictures">')[0]
    assert own.isascii() and b'<meta charset="windows-1252">' in own[:1024]
    data = data_of(html)
    score, trivial = (
        json.loads(Path(f"experiment/one/{stem}.json").read_text()) for stem in ("eval_cam", "eval_trivial_background")
    )
    first, second = data["runs"]
    assert first["curve"] == score["mIoU"] and first["method"] == "CTI" and len(first["classes"]) == 7
    assert first["trivial"] == {"background": trivial["best"]["mIoU"]}
    assert first["means"]["mIoU"]["value"] == pytest.approx(score["best"]["mIoU"])
    assert {curve["name"] for curve in first["training"]} == {"total"}
    masks = [read_mask(ScoredRun("one").images.mask_path(entry["id"])) for entry in data["images"]]
    present = np.array([[(mask == label).any() for label in range(7)] for mask in masks])
    assert first["together"] == [[(present[:, a] & present[:, b]).sum() for b in range(7)] for a in range(7)]
    (compared,) = data["comparison"]
    value, low, high = compared["means"]["mIoU"]
    assert value == pytest.approx(second["means"]["mIoU"]["value"] - first["means"]["mIoU"]["value"])
    assert low <= value <= high
    source = ScoredRun("one")
    for entry in data["images"]:
        seed = read_seed(f"experiment/one/dict/{entry['id']}.npy")
        number = smooth_plane_of(picture_at(html, entry["runs"][0]["number"]))
        label = plane_of(picture_at(html, entry["runs"][0]["label"]))
        assert number.shape == (entry["height"], entry["width"])
        assert pixels(picture_at(html, entry["photo"])).shape == (*number.shape, 3)
        for index in (0, 20, 55):
            labels = np.where(number > index, label, 0)
            assert (labels == seed_labels(seed, data["thresholds"][index], labels.shape)).all()
        assert (plane_of(picture_at(html, entry["truth"])) == read_mask(source.images.mask_path(entry["id"]))).all()
        assert [cam["label"] - 1 for cam in entry["runs"][0]["cams"]] == sorted(seed)


def test_pictures_of_a_training_over_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PCSS's importance masks in the run's folder, DiG's previews in that of its diffusion model; ten at most."""
    monkeypatch.chdir(tmp_path)
    for step in range(25):
        for folder, number in (("pcss/importance", f"{step:03d}"), ("ddpm/previews", f"{1000 * step:06d}")):
            path = tmp_path / "experiment" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1200, 40), (10 * step, 0, 0)).save(path)
    (importance,) = histories(RunFolder("pcss"), {})
    names = [own["name"] for own in importance["pictures"]]
    assert len(names) == 10 and names[0] == "after epoch 0" and names[-1] == "after epoch 24"
    last = pixels(importance["pictures"][-1]["picture"])
    assert last.shape == (30, 900, 3) and abs(int(last[5, 5, 0]) - 240) < 8
    (previews,) = histories(RunFolder("dig"), {"diffusion": {"file": "experiment/ddpm/ckpt/model-2.pt"}})
    assert previews["pictures"][-1]["name"] == "after step 24000"
    assert histories(RunFolder("cti"), {"diffusion": {"file": ""}}) == []


def test_published_curves_stand_beside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its method on its data set and backbone; others where they are named."""
    content = {"method": "ToCo", "data": {"dataset": "voc12"}, "model": {"arch": "deit_base_patch16_224"}}
    (found,) = published_curves(content)
    assert found["title"] == "published: voc deit_base" and found["curves"]["seg"][:1] == [(200.0, 2.8266)]
    assert published_curves({**content, "method": "CTI"}) == []
    assert published_curves({**content, "model": {"arch": "deit_small_patch16_224"}}) == []
    assert published_curves({**content, "data": {"dataset": "voc12", "classes": "own.txt"}}) == []
    Path("curve.csv").write_text("iteration,total\n1,0.6\n2,0.3\n", encoding="utf-8")
    assert call(monkeypatch, "report", "--name", "one", "--images", "0", "--reference", "curve.csv") == 0
    data = data_of(Path("experiment/one/report.html").read_bytes())
    assert data["references"] == [{"title": "curve", "curves": {"total": [[1, 0.6], [2, 0.3]]}}]


def test_published_numbers_are_those_of_the_evaluation() -> None:
    """Boxes stand beside boxes, seeds beside seeds, of the same method."""
    boxes = published("CRT localisation", of_boxes=True)
    assert [row["value"] for row in boxes] == [72.9, 90.1, 86.3]
    seeds = published("CRT")
    assert seeds and not {row["what"] for row in seeds} & {row["what"] for row in boxes}
    assert published("ToCo") and published("") == []


def test_names_are_shown_and_not_run() -> None:
    source = ScoredRun("one")
    data = content([source], chosen(source, 2), {"device": "</script><script>alert(1)</script>"})
    data["labels"][1] = "<!-- <script>"
    html = page(with_pictures(data, Images([source])))
    assert html.count(b"<script") == 3 and html.count(b"</script>") == 3 and b"<!-- " not in html
    assert data_of(html)["labels"][1] == "<!-- <script>"


def test_images_are_chosen_by_score_and_spread() -> None:
    source = ScoredRun("one")
    every = source.images.ids
    assert chosen(source, 100) == every and chosen(source, 0) == []
    low = min(every, key=lambda image_id: _iou(source, image_id))
    picked = chosen(source, 3)
    assert len(picked) == 3 and low in picked and picked == [image_id for image_id in every if image_id in picked]


def _iou(source: ScoredRun, image_id: str) -> float:
    counts = source.counts
    row = counts.ids.index(image_id)
    truth, predicted, correct = (values[0, row] for values in (counts.truth, counts.predicted, counts.correct))
    union = truth + predicted - correct
    return float((correct[union > 0] / union[union > 0]).mean())


def test_without_masks(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and predictions alone."""
    monkeypatch.chdir(tmp_path)
    scored_run(shapes, "bare", card=False)
    arguments = "--name", "bare", "--dict_dir", "dict", "--list", "val", "--images", "2"
    assert call(monkeypatch, "report", *arguments) == 0
    data = data_of(Path("experiment/bare/report.html").read_bytes())
    assert len(data["images"]) == 2 and data["images"][0]["scores"] == [{}] and "means" not in data["runs"][0]
    with pytest.raises(
        UserError, match=r"no score experiment/bare/eval_cam\.json; make it with: python evaluation\.py"
    ):
        call(monkeypatch, "report", "--name", "bare")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "lost"], "no run folder"),
        (["--name", "one:eval_png"], r"no score .*There are: one:eval_cam"),
        (["--name", "one", "--dict_dir", "dict"], "belong together"),
        (["--name", "one", "--dict_dir", "lost", "--list", "val"], "no folder of predictions"),
        (["--name", "one", "--against", "two", "two", "two", "two", "two"], "at most 4 further runs"),
        (["--name", "one", "--serve", "--port", "99999"], "--port 99999"),
        (["--name", "one", "--reference", "lost.csv"], "lost.csv"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path("experiment/one/report.html").exists()
    with pytest.raises(UserError, match=message):
        call(monkeypatch, "report", *arguments)
    assert Path("experiment/one/report.html").exists() == before


def test_a_missing_prediction_is_named() -> None:
    source = UnscoredRun("one", "dict", "train", "cam")
    with pytest.raises(UserError, match="missing: experiment/one/dict/"):
        Images([source]).picture(source.images.ids[0])


def test_the_parts_of_a_page_are_measured(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their sum is nearly the page; base64 is larger by a third of the pictures."""
    assert call(monkeypatch, "benchmark_report", "--root", shapes, "--images", 8, "--cells", 3) == 0
    sizes = {line[:24].strip(): float(line[24:].split()[0]) for line in capsys.readouterr().out.splitlines()}
    whole, base64_page = sizes.pop("page"), sizes.pop("page, in base64")
    sizes.pop("and levels as they are")
    assert sum(sizes.values()) < whole < base64_page


def test_the_server_sends_pictures_when_they_are_asked_for() -> None:
    source = ScoredRun("one")
    images = Images([source])
    data = content([source], chosen(source, 100), {})
    with ReportServer(data, images, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = server.address
        assert address.startswith("http://127.0.0.1:")
        html = urllib.request.urlopen(address).read()
        assert "photo" not in data_of(html)["images"][0]
        sent, own = json.loads(urllib.request.urlopen(f"{address}image/2").read()), images.picture(source.ids[2])
        assert base64.b64decode(sent["photo"]) == own["photo"] and base64.b64decode(sent["truth"]) == own["truth"]
        assert base64.b64decode(sent["runs"][0]["number"]) == own["runs"][0]["number"]
        for wrong in ("image/6", "image/-1", "image/../config.yaml", "etc/passwd"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(address + wrong)
            assert error.value.code == 404
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "elsewhere.org:80"}))
        assert error.value.code == 403
        server.shutdown()
