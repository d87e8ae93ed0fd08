"""Damaged, hostile and missing input to CTI's scripts: one clear line, exit code 1, nothing run and nothing lost."""

import errno
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.dataset import ImageSet
from common.data.masks import write_mask
from common.nets import pretrained
from common.run.errors import UserError, explained, preview, run_script
from tests.datasets import truncate, write_lines
from tests.helpers import Malicious, Scripts, contents, failure, fill_disk, last, metrics

ARRAY_LABELS = "data.labels=cls_labels.npy"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's hub is out of reach."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(pretrained, "_from_hub", unreachable)


# --- nothing prepared


@pytest.mark.parametrize(
    ("experiment_name", "words"),
    [
        ("cti_cvpr24", ("no PASCAL VOC 2012 at data/VOC2012", "prepare_data.py voc", "data.root=")),
        ("cti_coco_cvpr24", ("no MS COCO 2014 at data/COCO2014", "prepare_data.py coco", "data.root=")),
        ("cti_demo", ("at data/shapes", "data.root=")),
    ],
)
def test_without_data(scripts: Scripts, capsys, checkpoint: Path, experiment_name: str, words: tuple) -> None:
    """Training and inference say what is missing, where they looked and what provides it."""
    for function, arguments in ((scripts.train, ()), (scripts.infer, ("--load_pretrained", checkpoint, "--dict"))):
        message = failure(capsys, function, "x", "--exp", experiment_name, *arguments)
        assert all(word in message for word in (*words, str(Path.cwd()))), message
    assert not Path("experiment").exists()


def test_without_anything_as_a_user_sees_it(scripts: Scripts) -> None:
    """Exit code 1 and one line, for a mistyped flag as well."""
    code, _, errors = scripts.run("methods/cti/train_trm.py", "x", "--exp", "cti_cvpr24")
    assert code == 1 and errors.startswith("error: no PASCAL VOC 2012 at") and errors.count("\n") == 1
    with pytest.raises(UserError, match=r"unknown argument '--batchsize'\. Did you mean --batch_size\?"):
        scripts.train("x", "--batchsize", 3)


def test_without_lists_or_labels(scripts: Scripts, own_data: Path, capsys) -> None:
    """The list's name and the shipped ones; the label files that were looked for."""
    message = failure(capsys, scripts.train, "x", "--train_list", "trainaug")
    assert "no image list 'trainaug'" in message and "Did you mean train?" in message and "ImageSets" in message
    root = f"data.root={own_data}"
    shutil.rmtree(own_data / "Annotations")
    message = failure(capsys, scripts.train, "x", root, "data.labels=auto")
    assert "no image labels for PASCAL VOC 2012" in message and "prepare_data.py voc" in message
    message = failure(capsys, scripts.train, "x", root, "data.classes=none.txt")
    assert "data.classes: none.txt cannot be read" in message


def test_without_weights(scripts: Scripts, no_network: None, capsys) -> None:
    """ImageNet weights that are nowhere, a file that is not there, a run without checkpoints."""
    arguments = ("x", "model.pretrained=auto")
    message = failure(capsys, scripts.train, *arguments)
    for word in ("pretrained/deit_small_imagenet.pth", "timm's hub", "fetch", "model.pretrained=none", str(Path.cwd())):
        assert word in message
    assert "no weights file at no.pth" in failure(capsys, scripts.train, "x", "--finetune", "no.pth")
    assert "no weights file at no.pth" in failure(capsys, scripts.infer, "x", "--load_pretrained", "no.pth")
    assert not Path("experiment").exists()


# --- weights


def test_weights_with_code_in_them(scripts: Scripts, capsys) -> None:
    """Neither inference nor training runs it."""
    torch.save({"model": Malicious(), "cls_token": torch.zeros(1)}, "evil.pth")
    for function, flag in ((scripts.infer, "--load_pretrained"), (scripts.train, "--finetune")):
        assert "evil.pth holds more than tensors" in failure(capsys, function, "x", flag, "evil.pth")
    assert scripts.train("x", "train.max_steps=1") == 0
    shutil.copy("evil.pth", "experiment/x/ckpt/last.pth")
    assert "last.pth holds more than tensors" in failure(capsys, scripts.train, "x", "--resume")
    assert not Path("executed").exists()


def test_weights_that_do_not_fit(scripts: Scripts, checkpoint: Path, capsys) -> None:
    """Another number of classes, another network, a file cut short."""
    write_lines(Path("three.txt"), ["ball", "box", "tent"])
    arguments = ("x", "--load_pretrained", checkpoint)
    message = failure(capsys, scripts.infer, *arguments, "data.classes=three.txt")
    assert "pos_embed_cls (1, 7, 32) instead of (1, 4, 32)" in message and "number of classes" in message
    assert "missing (blocks.4" in failure(capsys, scripts.infer, *arguments, "model.depth=5")
    message = failure(capsys, scripts.train, "x", "--finetune", checkpoint, "model.embed_dim=64")
    assert "ImageNet checkpoint does not fit" in message
    shutil.copy(checkpoint, "cut.pth")
    truncate(Path("cut.pth"))
    assert "cut.pth cannot be read as weights" in failure(capsys, scripts.infer, "x", "--load_pretrained", "cut.pth")
    assert not Path("experiment").exists()


# --- data


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_image_in_training(scripts: Scripts, own_data: Path, capsys, workers: int) -> None:
    """It is named; the steps before are not lost; the repaired data set is gone on with."""
    last_image = own_data / "JPEGImages" / "2026_000001.jpg"
    whole = last_image.read_bytes()
    truncate(last_image)
    arguments = ("x", f"data.root={own_data}", "train.save_steps=1", "train.batch_size=2", "train.epochs=1")
    message = failure(capsys, scripts.train, *arguments, f"runtime.num_workers={workers}")
    assert f"the image {last_image} cannot be decoded" in message and "check_data.py" in message
    assert last("x")["position"]["total_steps"] == len(metrics("x")) > 0
    last_image.write_bytes(whole)
    assert scripts.train("x", "--resume") == 0
    assert last("x")["position"]["total_steps"] == 12


def test_mask_of_another_size(scripts: Scripts, own_data: Path, checkpoint: Path, capsys) -> None:
    """Named by validation, by scoring in memory and by scoring of files; steps and seeds are kept."""
    write_mask(own_data / "SegmentationClass" / "2027_000002.png", np.zeros((8, 9), np.uint8))
    root = f"data.root={own_data}"
    message = failure(capsys, scripts.train, "x", root, "train.epochs=1", "train.validate_from=0")
    assert "2027_000002" in message and "(8, 9)" in message
    assert last("x")["position"] == {"epoch": 0, "step": 6, "total_steps": 6, "best": -1.0, "validated": -1}
    message = failure(capsys, scripts.infer, "y", "--load_pretrained", checkpoint, root)
    assert "2027_000002" in message and "(8, 9)" in message
    message = failure(capsys, scripts.infer, "y", "--load_pretrained", checkpoint, root, "--dict")
    assert len(contents("experiment/y/dict")) == 6


def test_list_entry_that_leads_out(scripts: Scripts, own_data: Path, capsys) -> None:
    """With its line."""
    entries = ["2026_000001", "../../../etc/passwd"]
    for lines in (entries, [entries[0], "/JPEGImages/../../secret.jpg /SegmentationClass/x.png"]):
        write_lines(Path("list.txt"), lines)
        message = failure(capsys, scripts.train, "x", "--train_list", "list.txt")
        assert "list.txt has entries that cannot be used: line 2" in message and ".." in message


def test_malicious_label_file(scripts: Scripts, capsys, shapes: Path) -> None:
    """A pickle in `cls_labels.npy` that would run code; a sound one of the same form works."""
    np.save("cls_labels.npy", {"2026_000001": Malicious()}, allow_pickle=True)
    message = failure(capsys, scripts.train, "x", ARRAY_LABELS)
    assert "cls_labels.npy is not read" in message and "could run any code" in message
    assert not Path("executed").exists() and not Path("experiment").exists()
    labels = {path.stem: np.ones(6, np.float32) for path in (shapes / "JPEGImages").iterdir()}
    np.save("cls_labels.npy", labels, allow_pickle=True)
    assert scripts.train("x", ARRAY_LABELS, "train.max_steps=1") == 0


def test_malicious_seed_file(scripts: Scripts, checkpoint: Path, capsys) -> None:
    """Found while scoring; the other seeds are kept."""
    arguments = ("x", "--load_pretrained", checkpoint, "--dict")
    assert scripts.infer(*arguments) == 0
    seed = Path("experiment/x/dict/2027_000001.npy")
    np.save(seed, {0: Malicious()}, allow_pickle=True)
    failure(capsys, scripts.infer, *arguments)
    assert not Path("executed").exists() and len(contents("experiment/x/dict")) == 6
    seed.unlink()
    assert scripts.infer(*arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train.epoch=3",), "unknown configuration key 'train.epoch'"),
        (("train.epochs=many",), "wrong value for configuration key 'train.epochs'"),
        (("--exp", "cti_cvpr42"), "no configuration 'cti_cvpr42'"),
        (("runtime.device=cuda",), "no CUDA device"),
        (("model.img_size=30",), "model.img_size=30"),
        (("train.batch_size=25",), "only 24 images"),
        (("eval.thresholds=[0.5]", "train.validate_from=0"), "eval.thresholds=[0.5]"),
    ],
)
def test_wrong_configuration(scripts: Scripts, capsys, monkeypatch, arguments: tuple, words: str) -> None:
    """Through the script; nothing is written."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert words in failure(capsys, scripts.train, "x", *arguments)
    assert not Path("experiment").exists()


@pytest.mark.parametrize("name", ["../x", "", ".x", "a/b", "/x"])
def test_run_names_stay_in_their_folder(scripts: Scripts, name: str) -> None:
    """A name is one folder's name."""
    with pytest.raises(UserError, match="one folder name"):
        scripts.train(name)


# --- the machine


@pytest.mark.parametrize("room", [0, 50_000])
def test_disk_full_while_a_checkpoint_is_written(scripts: Scripts, capsys, monkeypatch, room: int) -> None:
    """The previous one is whole and is resumed from when there is room again."""
    assert scripts.train("x", "train.max_steps=4") == 0
    before = contents("experiment/x/ckpt")
    with monkeypatch.context() as patch:
        patch.setattr("common.run.script.save_config", lambda *_: None)
        fill_disk(patch, room)
        patch.setattr("common.run.log.drop_after", lambda *_: None)
        message = failure(capsys, scripts.train, "x", "--resume", "train.max_steps=0")
    assert "could not write" in message and ".pth" in message and "is intact" in message
    assert contents("experiment/x/ckpt") == before
    assert scripts.train("x", "--resume", "train.max_steps=0") == 0
    assert last("x")["position"]["total_steps"] == 12


def test_disk_full_while_seeds_are_written(scripts: Scripts, checkpoint: Path, capsys, monkeypatch) -> None:
    """No half-written file stays."""
    arguments = ("x", "--load_pretrained", checkpoint, "--dict")
    assert scripts.infer(*arguments, "infer.eval_list=") == 0
    seeds = contents("experiment/x/dict")
    for name in list(seeds)[2:]:
        (Path("experiment/x/dict") / name).unlink()
    with monkeypatch.context() as patch:
        fill_disk(patch, 2000)
        message = failure(capsys, scripts.infer, *arguments, "infer.batch_size=4", "infer.eval_list=")
    assert "could not write" in message and "No space left" in message
    found = contents("experiment/x/dict")
    assert len(found) == 2 and found.items() <= seeds.items()


@pytest.mark.parametrize("work", ["train", "infer"])
def test_a_killed_worker_is_reported(scripts: Scripts, checkpoint: Path, capsys, monkeypatch, work: str) -> None:
    """As the kernel kills one that takes too much memory."""
    main, load = os.getpid(), ImageSet.load_image

    def killed(images: ImageSet, index: int) -> object:
        if os.getpid() != main and images.ids[index] in ("2026_000005", "2027_000005"):
            os.kill(os.getpid(), signal.SIGKILL)
        return load(images, index)

    monkeypatch.setattr(ImageSet, "load_image", killed)
    if work == "train":
        message = failure(capsys, scripts.train, "x", "runtime.num_workers=2", "train.save_steps=1")
    else:
        arguments = ("--load_pretrained", checkpoint, "--dict", "--num_workers", 2)
        message = failure(capsys, scripts.infer, "x", *arguments)
    assert "a data-loader worker process died" in message and "memory" in message


def test_what_is_a_users_error() -> None:
    """A full disk and a dead worker are; a bug of ours is not, and keeps its traceback."""
    assert "No space left" in explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert "worker process died" in explained(RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "))
    for error in (RuntimeError("shapes"), OSError(errno.EACCES, "no"), ValueError("x"), KeyError("y")):
        assert explained(error) == ""

    def bug() -> int:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        run_script(bug)


def test_exit_codes(capsys) -> None:
    """What `main` returns; 130 after a second Ctrl-C."""
    for result, code in ((None, 0), (0, 0), (143, 143)):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda result=result: result)
        assert stop.value.code == code

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_script(interrupted)
    assert stop.value.code == 130 and "interrupted" in capsys.readouterr().err


def test_previews_are_short() -> None:
    """The first items, and how many more."""
    assert preview(range(7), 3) == "0, 1, 2 and 4 more" and preview([1]) == "1"
