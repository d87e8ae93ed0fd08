"""Nothing stale is passed off as new: folders, scores and resumed trainings notice what has changed, and say it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.data.dataset import DataConfig, ImageSet
from common.data.seeds import read_seed, write_seed
from common.data.stamp import MARGINALS, SEEDS, read_stamp, stamp_of
from common.run.errors import UserError
from common.run.fingerprint import differences, files_digest, flat, folder_digest, in_words
from common.run.folder import CARD_FILES
from common.run.processes import Processes
from common.score.evaluate import Scoring
from common.score.options import EvalConfig
from tests.datasets import write_lines, write_xml
from tests.helpers import Scripts, contents, evaluation_script, every_file, last

SEEDS_OF_X = Path("experiment/x/dict")


def test_differences_are_named() -> None:
    found = differences({"a": {"b": 1, "c": [2]}, "d": 3}, {"a": {"b": 1, "c": [4]}, "e": {}})
    assert found == {"a.c": ([2], [4]), "d": (3, "nothing"), "e": ("nothing", {})}
    assert in_words(found).startswith("a.c was [2], is [4]; e was nothing")
    assert flat({"a": {}}) == {"a": {}} and len(in_words({str(i): (0, 1) for i in range(20)}).split(";")) == 8


def test_digests_of_files(tmp_path: Path) -> None:
    """Small files by content, so that a copy is equal; large ones by time; neither temporary ones nor stamps count."""
    for name, size in (("a.png", 10), ("b.npy", 100_000)):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / name).write_bytes(bytes(size))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    before = folder_digest(tmp_path / "two")
    assert before == folder_digest(tmp_path / "one") != folder_digest(tmp_path / "nowhere")
    (tmp_path / "two" / ".c.tmp").touch()
    (tmp_path / "two" / "stamp.json").touch()
    os.utime(tmp_path / "two" / "a.png", ns=(1, 1))
    assert folder_digest(tmp_path / "two") == before
    os.utime(tmp_path / "two" / "b.npy", ns=(1, 1))
    assert folder_digest(tmp_path / "two") != before
    assert files_digest([tmp_path / "gone"]) != files_digest([tmp_path / "lost"])


def test_seeds_of_changed_inputs_are_made_again(
    scripts: Scripts, checkpoint: Path, own_data: Path, capsys: pytest.CaptureFixture
) -> None:
    """An image, its labels; the others stay. The weights count by content, not by place; scores go with the seeds."""
    labels = own_data / "Annotations"
    given = ("x", "--load_pretrained", checkpoint, "--dict", f"data.root={own_data}", f"data.labels={labels}",
             "infer.batch_size=1")  # fmt: skip
    assert scripts.infer(*given) == 0
    first, second = sorted(path.stem for path in SEEDS_OF_X.glob("*.npy"))[:2]
    whole, score = contents(SEEDS_OF_X), Path("experiment/x/eval_cam.json")
    fingerprint = json.loads(score.read_text())["fingerprint"]
    assert fingerprint["stamp"]["settings"]["weights"] and len(read_stamp(SEEDS_OF_X).images) == 6
    os.utime(own_data / "JPEGImages" / f"{first}.jpg", ns=(1, 1))
    write_xml(labels / f"{second}.xml", ["nothing known"])
    capsys.readouterr()
    pictures = [score.with_name(f"eval_cam{end}") for end in CARD_FILES]  # as evaluation.py --card leaves them
    for path in pictures:
        path.write_text("{}")
    assert scripts.infer(*given, "infer.eval_list=") == 0
    assert not any(path.exists() for path in pictures)
    shown = capsys.readouterr().out
    assert f"seeds of 2 images are made again, as their image, labels or seed have changed: {first}, {second}" in shown
    assert "2 seeds written, 4 were there" in shown and not score.exists()
    assert read_seed(SEEDS_OF_X / f"{second}.npy") == {}
    assert {**contents(SEEDS_OF_X), f"{second}.npy": b""} == {**whole, f"{second}.npy": b""}
    shutil.copy2(checkpoint, "copy.pth")
    assert scripts.infer(given[0], given[1], "copy.pth", *given[3:]) == 0
    assert "0 seeds written, 6 were there" in capsys.readouterr().out
    for change, words in (("model.num_heads=4", r"model.num_heads was 2, is 4"), ("infer.flip=false", "flip was True")):
        with pytest.raises(UserError, match=rf"{words}.*--overwrite"):
            scripts.infer(*given, change)
    (SEEDS_OF_X / f"{first}.npy").write_bytes(b"")  # as after a loss of power
    assert scripts.infer(*given) == 0
    assert (
        "1 seeds written" in capsys.readouterr().out and contents(SEEDS_OF_X)[f"{first}.npy"] == whole[f"{first}.npy"]
    )


def test_nothing_of_others_is_deleted(scripts: Scripts, checkpoint: Path) -> None:
    """Files without a stamp, or of another kind, are refused, with --overwrite as well."""
    given = ("x", "--load_pretrained", checkpoint, "--dict")
    write_seed(SEEDS_OF_X, "mine", {0: np.ones((2, 2), np.float32)})
    for more in ((), ("--overwrite",)):
        with pytest.raises(UserError, match="dict holds files without a stamp"):
            scripts.infer(*given, *more)
    Path("experiment/y/dict").mkdir(parents=True)
    shutil.copy(SEEDS_OF_X / "mine.npy", "experiment/y/dict")
    with pytest.raises(UserError, match="without a stamp"):
        scripts.infer("y", *given[1:], "--overwrite")
    assert Path("experiment/y/dict/mine.npy").is_file() and (SEEDS_OF_X / "mine.npy").is_file()


def test_crf_results_of_other_seeds_are_refused(scripts: Scripts, checkpoint: Path) -> None:
    given = ("x", "--load_pretrained", checkpoint, "--dict", "--crf", "--alphas", 6, "infer.eval_list=")
    assert scripts.infer(*given) == 0
    stamp = read_stamp("experiment/x/crf/06")
    assert stamp.kind is MARGINALS and stamp.seeds == str(SEEDS_OF_X) and stamp.settings["made_by"]["method"] == "CTI"
    with pytest.raises(UserError, match=r"crf/06 holds CRF marginals of .*made_by.flip was True, is False"):
        scripts.infer(*given, "--dict_dir", "plain", "infer.flip=false")


def test_a_resumed_run_is_the_same_run(
    scripts: Scripts, own_data: Path, capsys: pytest.CaptureFixture, experiment: Path
) -> None:
    """Another list, other labels, images or a network of the same size are refused with the difference; a learning
    rate is taken with a note, and an experiment that is not read is said.
    """
    data = (f"data.root={own_data}", f"data.labels={own_data / 'Annotations'}")
    assert scripts.train("x", *data, "train.max_steps=1") == 0
    before = every_file("experiment/x")
    lists = own_data / "ImageSets" / "Segmentation"
    ids = (lists / "train.txt").read_text().split()
    write_lines(Path("other.txt"), [*ids[1:], ids[0]])

    def refused(words: str, *arguments: object) -> None:
        with pytest.raises(UserError, match=rf"(?s)does not fit this run: .*{words}.*--name"):
            scripts.train("x", "--resume", *arguments)
        assert every_file("experiment/x") == before

    refused("model.num_heads was 2, is 4", "model.num_heads=4")
    refused("list of the images was", "train.image_list=other.txt")
    refused("loss.swap_idx was 1, is 0", "loss.swap_idx=0")
    annotation = own_data / "Annotations" / f"{ids[0]}.xml"
    text = annotation.read_text()
    write_xml(annotation, [])
    refused("image labels was")
    annotation.write_text(text)
    files = [own_data / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]
    for path in files:
        path.write_bytes(path.read_bytes() + b"\n")
    refused(f"{len(ids)} of {len(ids)} image files are others: {files[0].name}")
    for path in files[1:]:  # the first has been repaired, or is another: the run may go on with it
        path.write_bytes(path.read_bytes()[:-1])
    other = experiment.read_text().replace("lr: 0.001", "lr: 0.5")
    Path("other.yaml").write_text(other)
    capsys.readouterr()
    assert scripts.train("x", "--resume", "optim.lr=0.002", "train.max_steps=2", "--exp", "other.yaml") == 0
    shown = capsys.readouterr().out
    assert "goes on with other settings: optim.lr was 0.001, is 0.002; train.max_steps was 1, is 2" in shown
    assert "note: 1 image file(s) have changed since experiment/x/ckpt/last.pth was written" in shown
    assert files[0].name in shown and files[1].name not in shown
    assert "--exp other.yaml is not read" in shown and "optim.lr was 0.001 in the run, is 0.5 there" in shown
    assert last("x")["position"]["total_steps"] == 2


@pytest.fixture
def scored(seeds: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Seeds of val in a run ``x``; the command that scores them, without a list."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(seeds, SEEDS_OF_X)
    for file in SEEDS_OF_X.glob("*.npy"):  # train's
        file.unlink()
    return ["--name", "x", "--dict_dir", "dict", f"data.root={shapes}", f"data.classes={shapes}/classes.txt"]


def test_the_list_is_the_recorded_one(scored: list[str], shapes: Path) -> None:
    """Else the one that fits is named."""
    script, data = evaluation_script(), DataConfig(root=str(shapes), classes=str(shapes / "classes.txt"))
    with pytest.raises(UserError, match="dict has 0 of 24 of 'train', but 6 of 'val': --list val"):
        script.main(scored)
    stamp_of(SEEDS, "cti", {}, ImageSet(data, "val")).write(SEEDS_OF_X)
    script.main(scored)
    result = json.loads(Path("experiment/x/eval_cam.json").read_text())
    assert (result["list"], result["images"]) == ("val", 6)
    write_lines(Path("strange.txt"), ["2099_000001"])
    with pytest.raises(UserError, match=r"dict has 0 of 1 of 'strange.txt', but 6 of 'val'"):
        script.main([*scored, "--list", "strange.txt"])


def test_an_inference_that_writes_nothing_says_so(
    scripts: Scripts, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    given = ("x", "--load_pretrained", checkpoint)
    assert scripts.infer(*given) == 0
    assert "no seeds were written; --dict writes them\n" in capsys.readouterr().out
    assert scripts.infer(*given, "--dict") == 0 and scripts.infer(*given) == 0
    assert "dict holds old seeds, of the same weights: evaluation.py scores these" in capsys.readouterr().out


def test_an_image_that_is_listed_twice_counts_once(scored: list[str], shapes: Path) -> None:
    ids = (shapes / "ImageSets/Segmentation/val.txt").read_text().split()
    results = []
    for number, entries in enumerate((ids, [*ids, ids[0], *ids])):
        write_lines(Path(f"list{number}.txt"), entries)
        evaluation_script().main([*scored, "--list", f"list{number}.txt"])
        results.append(json.loads(Path("experiment/x/eval_cam.json").read_text()))
    assert results[0]["mIoU"] == results[1]["mIoU"] and results[0]["images"] == results[1]["images"] == 6
    assert len(ImageSet(DataConfig(root=str(shapes)), "list1.txt")) == 6


MASK = np.array([[0, 1], [1, 1]], np.uint8)
RAMP = np.array([[0.1, 0.6], [0.7, 0.8]], np.float32)


@pytest.mark.parametrize(("seeds", "words"), [
    ([{0: RAMP}, {0: RAMP.T}], []),
    ([{0: RAMP * 2}, {0: RAMP.T}], ["1 of 2 seeds have values outside [0, 1], 0.1 to 1.6"]),
    ([{0: RAMP - 0.2}, {0: RAMP.T}], ["outside [0, 1], -0.1 to 0.8"]),
    ([{}, {0: RAMP}], ["1 of 2 seeds are empty"]),
    ([{0: RAMP}, {0: RAMP}], ["all 2 seeds hold the same values"]),
    ([{0: 0 * RAMP + 0.5}, {0: 0 * RAMP + 0.6}], ["has a single value", "the best threshold, 0.00, is the first"]),
    ([{0: RAMP / 100}, {0: RAMP.T / 100}], ["the best threshold, 0.00, is the first one"]),
    ([{0: RAMP + 0.19}, {0: RAMP.T + 0.19}], []),
])  # fmt: skip
def test_odd_seeds_are_doubted(seeds: list[dict], words: list[str]) -> None:
    scoring = Scoring("cam", ["cat"], EvalConfig())
    for number, seed in enumerate(seeds):
        scoring.add(str(number), seed, MASK)
    found = scoring.result(["0", "1"], Processes()).as_dict()["warnings"]
    assert len(found) == len(words) and all(word in text for word, text in zip(words, found, strict=True)), found


def test_infinite_seeds_are_refused() -> None:
    scoring = Scoring("cam", ["cat"], EvalConfig())
    for value in (np.inf, -np.inf):
        scoring.add("a", {0: np.where(RAMP > 0.5, np.float32(value), RAMP)}, MASK)
    assert [problem.reason for problem in scoring.problems] == ["the maps hold infinite values"] * 2
    assert not scoring.counts.truth.any()
