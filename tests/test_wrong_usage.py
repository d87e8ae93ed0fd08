"""Wrong usage as new users try it: the first line that they read names the mistake and the way out."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.data.lists import find_list
from common.run.command import parse_config, script_parser
from common.run.config import CONFIG_DIR, config_path, load_config, save_config
from common.run.errors import UserError
from common.run.folder import RunFolder
from common.run.method import scripts_of
from common.run.script import PREPARATION, SEEDS, TRAINING, parse_arguments
from methods.crt.wsol_config import WSOLConfig
from methods.cti.config import CTIConfig
from methods.pcss.config import PCSSConfig
from methods.psa.config import PSAConfig
from tests.test_config import CLASSES

Call = Callable[..., str]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a script in an empty folder: its error."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, line: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *line.split()])
        with pytest.raises(UserError) as error:
            importlib.import_module(script).main()
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
        (["--name", "x", "--load_epo", "best"], "argument --load_epo: invalid int value: 'best'"),
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
    with pytest.raises(UserError, match=r"Did you mean cti_cvpr24\? There are: cti_coco_cvpr24, cti_cvpr24, cti_demo$"):
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
