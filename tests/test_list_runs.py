"""The list of all runs."""

import csv
import json
from pathlib import Path

import pytest

from common.run.config import config_path, load_config, save_config
from common.run.folder import RunFolder
from methods.cti.config import CTIConfig
from methods.toco.config import ToCoConfig
from tests.datasets import call, write_lines


def write_score(run: str, stem: str, list_name: str, miou: float, threshold: float | None = None) -> None:
    """An evaluation's result."""
    content = {"list": list_name, "images": 6, "best": {"mIoU": miou, "threshold": threshold}}
    write_lines(RunFolder(run).scores(stem), [json.dumps(content)])


def test_all_runs_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Method, experiment, epoch, list and mIoU, the best score of a list first; runs of earlier versions, too."""
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "list_runs") == 0
    assert "no such runs in" in capsys.readouterr().out

    save_config(load_config(CTIConfig, config_path("cti_demo")), RunFolder("new").config, "cti_demo")
    write_lines(RunFolder("new").metrics, ['{"step": 50, "kind": "train", "epoch": 3, "total": 1}', '{"step": 60, "ki'])
    write_score("new", "eval_cam", "val", 78.09, 0.2)
    write_score("new", "eval_crf", "val", 80.5)
    write_score("new", "eval_seeds", "data/train.txt", 70.0, 0.25)
    write_lines(Path("experiment/new/eval_wsol.json"), ["{}"])
    older = load_config(ToCoConfig, config_path("toco_cvpr23"), ["train.max_steps=9", "train.batch_size=8"])
    save_config(older, RunFolder("old").config)
    text = RunFolder("old").config.read_text().replace("method: ToCo\n", "")
    RunFolder("old").config.write_text(text)
    write_lines(Path("experiment/pipe/pipeline_irn.yaml"), ["method: pipeline"])
    write_lines(Path("experiment/broken/eval_png.json"), ["{"])
    Path("experiment/not a run").mkdir()

    assert call(monkeypatch, "list_runs", "--csv", "runs.csv") == 0
    with Path("runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["run"], row["method"], row["score"], row["list"], row["miou"], row["threshold"]) for row in rows]
    assert found == [
        ("broken", "", "png", "damaged", "", ""),
        ("new", "CTI", "seeds", "train", "70.0", "0.25"),
        ("new", "CTI", "crf", "val", "80.5", ""),
        ("new", "CTI", "cam", "val", "78.09", "0.2"),
        ("old", "", "", "", "", ""),
        ("pipe", "pipeline", "", "", "", ""),
    ]
    new, old = rows[1], rows[4]
    assert (new["experiment"], new["trained"]) == ("cti_demo", "epoch 3, step 50")
    assert (old["experiment"], old["trained"]) == ("(toco_cvpr23, 2 differ)", "")
    head, *lines = capsys.readouterr().out.splitlines()[:7]
    assert head.split() == ["run", "method", "experiment", "trained", "score", "list", "miou", "threshold"]
    assert len({line.index("damaged") for line in lines if "damaged" in line} | {head.index("list")}) == 1

    assert call(monkeypatch, "list_runs", "--method", "cti", "--list", "val") == 0
    shown = capsys.readouterr().out
    assert "80.50" in shown and "78.09" in shown and "70.00" not in shown and "toco" not in shown
