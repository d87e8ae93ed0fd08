"""Wrong usage as new users try it: the first line that they read names the mistake and the way out."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.dataset import ImageSet
from common.data.layout import DataConfig
from common.data.lists import LIST_DIR, find_list
from common.run.command import parse_config, script_parser
from common.run.config import CONFIG_DIR, config_path, load_config, save_config
from common.run.errors import UserError
from common.run.folder import EPOCH_FILE, RunFolder
from common.run.method import scripts_of
from common.run.script import PREPARATION, SEEDS, TRAINING, parse_arguments
from methods.crt.wsol_config import WSOLConfig
from methods.cti.config import CTIConfig
from methods.pcss.config import PCSSConfig
from methods.psa.config import PSAConfig
from tests.datasets import make_voc, write_lines
from tests.helpers import evaluation_script
from tests.test_config import CLASSES

Call = Callable[..., str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a script in an empty folder: its error."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, line: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *line.split()])
        with pytest.raises(UserError) as error:
            (evaluation_script() if script == "evaluation" else importlib.import_module(script)).main()
        return str(error.value)

    return call


def write_run(name: str, config: object) -> Path:
    """A run folder with a configuration."""
    run = RunFolder(name)
    save_config(config, run.config)
    return run.config


def test_a_run_of_another_method_names_the_script_to_use(said: Call) -> None:
    """Of the same kind as the one that was called, for runs and experiments; all scripts where there is none."""
    write_run("cti_demo", load_config(CTIConfig, config_path("cti_demo")))
    message = said("methods.pcss.infer_pcss", "--name cti_demo --dict")
    assert message.startswith("experiment/cti_demo is a run of CTI: use methods/cti/infer_trm.py.")
    assert "This script is of PCSS" in message and "--name" in message
    message = said("methods.pcss.train_pcss", "--name x --exp cti_cvpr24")
    assert "configs/cti_cvpr24.yaml is an experiment of CTI: use methods/cti/train_trm.py." in message
    assert said("methods.psa.make_crf", "--name cti_demo --seeds x").startswith("experiment/cti_demo is a run of CTI")
    message = said("methods.deeplab.test_deeplab", "--name cti_demo")
    assert "use methods/cti/infer_trm.py or methods/cti/train_trm.py." in message
    write_run("birds", WSOLConfig())
    assert "use methods/crt/train_wsol.py." in said(
        "methods.crt.train_cam", "--name x --exp experiment/birds/config.yaml"
    )


def test_runs_of_earlier_versions_name_no_method(tmp_path: Path) -> None:
    """They suit every script that has their keys, as before."""
    path = tmp_path / "config.yaml"
    path.write_text("train: {epochs: 3}\n")
    assert load_config(CTIConfig, path).train.epochs == load_config(PCSSConfig, path).train.epochs == 3
    path.write_text("method: PCSS # the other one\ntrain: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"is an experiment of PCSS: use methods/pcss/infer_pcss\.py or"):
        load_config(CTIConfig, path)


def test_scripts_are_found_by_the_calls_in_them() -> None:
    """Those of every method that has an experiment; the two that start pipelines do so in another way."""
    found = {cls.method: scripts_of(cls.method) for cls in CLASSES.values()}
    assert found.pop("pipeline") == {}
    assert found["CTI"] == {"methods/cti/infer_trm.py": "seeds", "methods/cti/train_trm.py": "training"}
    assert found["ToCo"]["methods/toco/infer_seg.py"] == "masks"
    assert found["PSA"]["methods/psa/make_crf.py"] == "preparation"
    assert found["CRF alone"] == {"scripts/crf_masks.py": "preparation"}
    assert all(found.values()) and scripts_of("unknown") == {}


KEYS = {  # typed on the command line of CTI's training, and the question
    "learning_rate=0.1": "optim.lr", "train.batchsize=4": "train.batch_size", "wd=0": "optim.weight_decay",
    "epochs=3": "train.epochs", "trian.epochs=3": "train", "max_iters=5": "train.max_steps", "gpu=1": "runtime.device",
    "data_root=x": "data.root", "model.backbone=x": "model.arch", "workers=2": "runtime.num_workers",
}  # fmt: skip
FLAGS = {  # typed with dashes, by kind of script
    ("--epoch", "TRAINING"): "Did you mean --epochs?", ("--epoch", "SEEDS"): "Did you mean --load_epo?",
    ("--learning_rate", "TRAINING"): "Did you mean optim.lr=VALUE?", ("--batchsize", "TRAINING"): "mean --batch_size?",
    ("--train.epochs", "TRAINING"): "Keys have no dashes: train.epochs=VALUE.", ("--nmae", "TRAINING"): "mean --name?",
    ("--checkpoint", "SEEDS"): "mean --load_pretrained?", ("--work_dir", "TRAINING"): "mean --name?",
    ("--config", "SEEDS"): "mean --exp?",
    ("--num-workers", "SEEDS"): "mean --num_workers?", ("--dcit", "SEEDS"): "--dict?",
    ("--load-epo", "SEEDS"): "mean --load_epo?", ("--zzz", "SEEDS"): "unknown argument '--zzz'. --help",
}  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), KEYS.items())
def test_keys_by_another_name(text: str, meant: str) -> None:
    """Words of other code bases are known on the command line; a YAML has to use the keys' names."""
    with pytest.raises(UserError, match=rf"unknown configuration key .*Did you mean {meant}\?"):
        load_config(CTIConfig, None, [text])


def test_synonyms_are_for_the_command_line_alone(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("learning_rate: 0.1\n")
    with pytest.raises(UserError, match="unknown configuration key 'learning_rate'") as error:
        load_config(CTIConfig, tmp_path / "x.yaml")
    assert "optim.lr" not in str(error.value)


@pytest.mark.parametrize(("typed", "words"), FLAGS.items(), ids=lambda value: str(value)[:16])
@pytest.mark.parametrize("form", ["{} 5", "{}=5"])
def test_flags_by_another_name(typed: tuple, words: str, form: str) -> None:
    flag, kind = typed
    usage = {"TRAINING": TRAINING, "SEEDS": SEEDS}[kind]
    with pytest.raises(UserError) as error:
        parse_arguments("", CTIConfig, "cti_cvpr24", usage, argv=["--name", "x", *form.format(flag).split()])
    assert str(error.value).startswith(f"unknown argument '{flag}'.") and words in str(error.value)


def test_other_mistakes_of_a_command_line() -> None:
    """One line each; a flag of the script without dashes; a script without a configuration."""
    for argv, words in (
        ([], "the following arguments are required: --name"),
        (["--name", "x", "exp=cti_demo"], "'exp=cti_demo': --exp is a flag; write --exp VALUE"),
        (["--name", "x", "--load_epo", "best"], "argument --load_epo: 'best' is no whole number"),
    ):
        with pytest.raises(UserError, match=words):
            parse_arguments("", CTIConfig, "cti_cvpr24", SEEDS, argv=argv)
    parser = script_parser("")
    parser.add_argument("--margin")
    with pytest.raises(UserError, match=r"unknown argument '--marign'\. Did you mean --margin\?"):
        parser.parse_args(["--marign", "3"])
    with pytest.raises(UserError, match=r"unknown argument '--low_alhpa'\. Did you mean --low_alpha\?"):
        parse_config(script_parser("", PSAConfig, ignores=["infer"]), ["--low_alhpa", "3"])
    assert PREPARATION.kind == "preparation"


def test_experiments_lists_and_runs_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked about among those that there are; experiments among those of the method."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean cti_cvpr24\? There are: backbone_.*, cti_cvpr24, cti_demo$"):
        config_path("cti_cvpr2", "CTI")
    with pytest.raises(UserError, match=r"Did you mean pcss_demo\? There are: .*toco"):
        config_path("pcs_demo")
    (tmp_path / "own.txt").touch()
    for name, meant in (("train_agu", "train_aug"), ("voc12/trian.txt", "train"), ("onw", "own"), ("alll", "all")):
        with pytest.raises(UserError, match=rf"no image list '{name}'.*Did you mean {meant}\?"):
            find_list(name, "voc12", tmp_path)
    write_run("cti_demo", CTIConfig())
    with pytest.raises(UserError, match=r"no run folder experiment/ctidemo .*Did you mean cti_demo\? There are"):
        RunFolder("ctidemo").existing()
    assert CONFIG_DIR.is_dir()


# Scripts that take --check, with the arguments that they cannot do without.
CHECKED = {
    "methods.cti.train_trm": "", "methods.cti.infer_trm": "--exp cti_cvpr24 --dict", "methods.dig.train_diffusion": "",
    "methods.psa.train_aff": "", "methods.psa.make_crf": "", "methods.irn.train_irn": "",
    "methods.irn.infer_irn": "--exp irn_cti", "methods.deeplab.train_deeplab": "", "methods.crt.train_wsol": "",
    "methods.toco.infer_seg": "--exp toco_cvpr23", "methods.crt.run_sample": "", "scripts.crf_masks": "",
    "scripts.run_pipeline": "", "scripts.check_data": None, "evaluation": "--dict_dir dict",
}  # fmt: skip


def listed(message: str) -> list[str]:
    """The entries of a message about several things that are missing."""
    head, *entries = message.split("\n  - ")
    assert head in (f"{len(entries)} things are missing:", "1 thing is missing:")
    return entries


@pytest.mark.parametrize(("script", "arguments"), CHECKED.items())
def test_check_names_everything_that_is_missing(script: str, arguments: str | None, said: Call) -> None:
    """The data set in every case, and the run, seeds, masks or weights that the script needs; nothing is made."""
    entries = listed(said(script, "--check" if arguments is None else f"--name x --check {arguments}"))
    data = "no CUB-200-2011 at" if "wsol" in script else "no PASCAL VOC 2012 at"
    assert sum(entry.startswith(data) for entry in entries) == 1
    others = {
        "infer": "no run folder", "run_pipeline": "no initial weights", "train_aff": "no weights of ResNet-38",
        "train_irn": "no label maps", "train_deeplab": "no initial weights", "make_crf": "which seeds?",
        "crf_masks": "which seeds?", "evaluation": "no run folder",
    }  # fmt: skip
    wanted = {words for part, words in others.items() if part in script}
    assert all(any(words in entry for entry in entries) for words in wanted), entries
    assert list(Path().iterdir()) == []


def test_check_says_what_there_is(said: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Exit code 0, and nothing is done; without --check several missing things are told at once as well."""
    make_voc(Path("voc"))
    line = "--name x data.root=voc --train_list train model.pretrained=none"
    monkeypatch.setattr(sys, "argv", ["train_trm.py", "--check", *line.split()])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("methods.cti.train_trm").main()
    assert end.value.code == 0 and not Path("experiment").exists()
    said_there = capsys.readouterr().out
    assert said_there.startswith("nothing is missing: voc; ") and "list train (voc/ImageSets/" in said_there
    write_lines(Path("experiment/x/log.txt"), [])
    line = "--name x data.root=voc --train_list onw --finetune lost.pth data.classes=lost.txt"
    entries = listed(said("methods.cti.train_trm", line))
    wanted = "experiment/x is not empty", "no weights file at lost.pth", "data.classes: lost.txt", "no image list 'onw'"
    assert len(entries) == 4 and all(any(words in entry for entry in entries) for words in wanted), entries


def test_a_missing_epoch_is_told_before_the_data_is_read(said: Call) -> None:
    run = RunFolder("x")
    write_run("x", CTIConfig())
    for epoch in range(3):
        write_lines(run.checkpoints / EPOCH_FILE.format(epoch), [])
    make_voc(Path("data/VOC2012"))
    message = said("methods.cti.infer_trm", "--name x --load_epo 59 --dict")
    assert message == "no checkpoint experiment/x/ckpt/059net_trm.pth. There are epochs 0 to 2."


def test_a_wrong_folder_is_told_from_a_missing_one(said: Call) -> None:
    """The folder that is meant is named, where it lies below; no lists are looked for in a wrong one."""
    line = "--name x data.root=data --train_list own"
    assert said("methods.cti.train_trm", line).startswith("no PASCAL VOC 2012 at data (from ")
    make_voc(Path("data/VOCdevkit/VOC2012"))
    message = said("methods.cti.train_trm", line)
    assert message.startswith("data is there, but holds no PASCAL VOC 2012: it has no JPEGImages, but VOCdevkit.")
    assert "Did you mean data.root=data/VOCdevkit/VOC2012?" in message
    assert "no image list 'own'" in said("methods.cti.train_trm", line.replace("=data", "=data/VOCdevkit/VOC2012"))
    line = "--name x data.root=data data.dataset=coco14 train.image_list=train14"
    assert "it has no train2014 or val2014, but VOCdevkit." in said("methods.cti.train_trm", line)
    Path("birds").mkdir()
    assert "birds is there, but is no folder of CUB" in said("methods.crt.train_wsol", "--name x data.root=birds")


def test_shipped_lists_are_for_the_official_classes(said: Call) -> None:
    """VOC's lists name none of the images of a set with classes of its own in the same layout."""
    make_voc(Path("own"))
    write_lines(Path("own/classes.txt"), ["cat", "person"])
    message = said("methods.cti.train_trm", "--name x data.root=own data.classes=own/classes.txt train.val_list=val")
    assert "no image list 'train_aug'" in message and "The shipped list is of the official set" in message
    for name in ("train_aug", "train_aug.txt", "voc12/train_aug.txt", "./voc12/train_aug"):  # as the papers' code does
        assert find_list(name, "voc12", "own") == LIST_DIR / "voc12" / "train_aug.txt"


def test_both_lists_are_found_before_an_image_is_decoded(said: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*arguments: object, **settings: object) -> list:
        raise AssertionError("decoded an image")

    make_voc(Path("voc"))
    monkeypatch.setattr(importlib.import_module("scripts.check_data"), "map_in_processes", decoded)
    assert "no image list 'vla'" in said("scripts.check_data", "data.root=voc --val_list vla")


def test_ignored_folders_are_said_once(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """Of entries in another folder than the images'; the papers' own columns are the usual form."""
    ids = make_voc(tmp_path)
    for place, is_said in (("/JPEGImages/", False), ("elsewhere/", True), ("elsewhere/", False)):
        file = write_lines(tmp_path / f"{place.strip('/')}.txt", [f"{place}{name}.jpg" for name in ids])
        assert ImageSet(DataConfig(root=str(tmp_path)), str(file)).ids == ids
        assert ("names folders (elsewhere), which are ignored" in capsys.readouterr().out) == is_said


def test_pipelines_ask_for_all_weights_first(said: Call) -> None:
    """Those of DeepLab before IRN is trained for hours; not once DeepLab's training is done."""
    make_voc(Path("data/VOC2012"))
    write_lines(Path("experiment/x/dict/2007_000001.npy"), [])
    line = "--name x lists.train=train lists.score=train lists.val=val --refine psa"
    entries = listed(said("scripts.run_pipeline", line))
    assert [entry.split(" (")[0][:20] for entry in entries] == ["no weights of ResNet", "no initial weights p"]
    write_lines(Path("experiment/x_psa_deeplab/ckpt/checkpoint_final.pth"), ["weights"])
    assert said("scripts.run_pipeline", line).startswith("no weights of ResNet-38")
