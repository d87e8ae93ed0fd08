"""The pipeline: its stages in order, what is skipped, resumed or refused, the table; and masks by CRF alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from common.data.lists import read_list
from common.data.masks import read_mask
from common.data.seeds import write_seed
from common.data.stamp import SEEDS, STAMP_FILE, Stamp
from common.data.thresholds import write_thresholds
from common.pipeline.builders import KINDS
from common.pipeline.options import PipelineConfig
from common.pipeline.stages import Stage, StageRunner, carry_out
from common.run.config import CONFIG_DIR, load_config
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.processes import Processes
from tests.datasets import call, write_lines
from tests.helpers import TORCHRUN, contents, failure

LABELS, IRN, IRN_MASKS = (f"methods/irn/{name}.py" for name in ("make_ir_label", "train_irn", "infer_irn"))
SCORES, PSA, PSA_MASKS = (f"methods/psa/{name}.py" for name in ("make_crf", "train_aff", "infer_aff"))
CRF_MASKS, SCORE = "scripts/crf_masks.py", "evaluation.py"
SEGMENTS, VOTE, FUSION = "scripts/make_segments.py", "methods/segments/vote.py", "scripts/fuse_seeds.py"
DEEPLAB = ["methods/deeplab/train_deeplab.py", "methods/deeplab/test_deeplab.py"]
STEPS = {
    "irn": [SCORE, SCORE, LABELS, IRN, IRN_MASKS, *DEEPLAB],
    "psa": [SCORE, SCORE, SCORES, SCORE, SCORE, PSA, PSA_MASKS, *DEEPLAB],
    "crf": [SCORE, SCORE, CRF_MASKS, *DEEPLAB],
    "segments": [SCORE, SCORE, SEGMENTS, VOTE, SCORE, *DEEPLAB],
}
WEIGHTS = {IRN: "001res50_irn.pth", PSA: "003net_trm.pth", DEEPLAB[0]: "checkpoint_final.pth"}
FOLDERS = {
    LABELS: ["ir_label"], SCORES: ["crf/04", "crf/16"], DEEPLAB[1]: ["segs/val", "segs_crf/val"],
    SEGMENTS: ["segments"], VOTE: ["dict", "masks"], FUSION: ["dict", "agreement"],
}  # fmt: skip
SUFFIX = {"crf": "npy", "dict": "npy", "segments": "npz", "agreement": "npz"}  # of other folders: png
MIOU = {"train": 60.0, "val": 50.0}


@pytest.fixture(scope="module")
def seeds(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeds of all images: the true masks, blurred; not to be changed."""
    folder = tmp_path_factory.mktemp("seeds") / "dict"
    for file in sorted((shapes / "SegmentationClass").iterdir()):
        mask = read_mask(file)
        classes = [int(label) for label in np.unique(mask) if label not in (0, 255)]
        blurred = {label - 1: cv2.GaussianBlur((mask == label).astype(np.float32), (0, 0), 3) for label in classes}
        write_seed(folder, file.stem, {key: cam / cam.max() for key, cam in blurred.items()})
    return folder


class FakeScripts:
    """Stands in for the processes: notes every command, and makes the files that the script would."""

    def __init__(self, shapes: Path) -> None:
        self.lists = {
            name: read_list(shapes / f"ImageSets/Segmentation/{name}.txt", "voc12") for name in ("train", "val")
        }
        self.commands: list[list[str]] = []
        self.instead: dict[str, Callable[[Path], int]] = {}  # by script: what it does with its folder, its exit code

    def __call__(self, command: list[str], start_new_session: bool, **options: object) -> "FakeScripts":
        """As `subprocess.Popen`."""
        assert start_new_session and command[0] == sys.executable
        self.commands.append(command[1:])
        name = next(part for part in command[1:] if part.startswith(str(ROOT)))
        options, which = command[command.index(name) + 1 :], str(Path(name).relative_to(ROOT))
        folder = Path("experiment") / options[options.index("--name") + 1]
        folder.mkdir(parents=True, exist_ok=True)
        self.code = self.instead.pop(which, lambda folder: self.make(which, folder, options))(folder)
        return self

    def wait(self) -> int:
        """The exit code."""
        return self.code

    def make(self, which: str, folder: Path, options: list[str]) -> int:
        if which == SCORE:
            list_name, stem = (options[options.index(flag) + 1] for flag in ("--list", "--out"))
            self.score(folder / f"{stem}.json", list_name, MIOU[list_name])
        elif which in WEIGHTS:
            (folder / "ckpt").mkdir(exist_ok=True)
            (folder / "ckpt" / WEIGHTS[which]).write_text("weights")
        else:
            list_name = "val" if which == DEEPLAB[1] or "infer.image_list=val" in options else "train"
            for name in FOLDERS.get(which, ["masks"]):
                (folder / name).mkdir(parents=True, exist_ok=True)
                for image_id in self.lists[list_name]:
                    (folder / name / f"{image_id}.{SUFFIX.get(name.partition('/')[0], 'png')}").write_text(which)
        if which in (VOTE, IRN_MASKS, PSA_MASKS, CRF_MASKS, DEEPLAB[1]):
            self.score(folder / "eval_png.json", list_name, MIOU[list_name] + 5)
        if which == DEEPLAB[1]:
            self.score(folder / "eval_png_crf.json", list_name, MIOU[list_name] + 7)
        return 0

    def score(self, file: Path, list_name: str, miou: float) -> None:
        points = {name: {"threshold": 0.2, "mIoU": miou - less} for name, less in (("best", 0), ("fixed", 1))}
        file.write_text(json.dumps({"list": list_name, "images": len(self.lists[list_name]), **points}))

    def called(self) -> list[str]:
        """The scripts since the last call, in order."""
        names = [str(Path(part).relative_to(ROOT)) for c in self.commands for part in c if part.startswith(str(ROOT))]
        self.commands = []
        return names


@pytest.fixture
def fake(shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeScripts:
    """Fake scripts, and a folder with the seeds of a run ``x`` and the YAML of a pipeline."""
    monkeypatch.chdir(tmp_path)
    Path("experiment/x").mkdir(parents=True)
    Path("experiment/x/dict").symlink_to(seeds)
    data = {"root": str(shapes), "classes": str(shapes / "classes.txt")}
    stages = {kind: {"exp": f"{kind}_demo"} for kind in ("irn", "psa", "crf", "segments", "fusion", "deeplab")}
    Path("own.yaml").write_text(yaml.safe_dump({"data": data, "lists": {"train": "train"}, **stages}))
    scripts = FakeScripts(shapes)
    monkeypatch.setattr(subprocess, "Popen", scripts)
    monkeypatch.setattr("common.pipeline.stages._end_of", lambda process: (process.wait(), 0))
    return scripts


@pytest.fixture
def run(fake: FakeScripts, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls the pipeline ``x``."""
    return lambda *arguments: call(monkeypatch, "run_pipeline", "--name", "x", "--exp", "own.yaml", *arguments)


@pytest.mark.parametrize("refine", STEPS)
def test_stages_run_in_order_once(
    run: Callable[..., int], fake: FakeScripts, refine: str, capsys: pytest.CaptureFixture
) -> None:
    """Every script gets what the one before has made; a second call finds everything there; the table has all of it."""
    assert run("--refine", refine) == 0
    commands = [" ".join(command) for command in fake.commands]
    assert fake.called() == STEPS[refine]
    assert all((ROOT / name).is_file() for name in STEPS[refine])
    first = commands[3 if refine == "segments" else 2]
    assert "--seeds experiment/x/dict" in first and "infer.image_list=train" in first
    assert f"--name x_{refine}_deeplab --masks experiment/x_{refine}/masks" in commands[-2]
    assert not [command for command in commands if "--resume" in command or "--overwrite" in command]
    shown = capsys.readouterr().out
    assert run("--refine", refine) == 0
    assert fake.called() == []
    assert capsys.readouterr().out.count("complete, skipped") == len(STEPS[refine])

    rows = json.loads(Path(f"experiment/x/pipeline_{refine}.json").read_text())["table"]
    gains = {(row["stage"], row["list"]): row["gain"] for row in rows}
    assert gains["seeds, best threshold", "train"] == 0 and gains["seeds, fixed threshold", "val"] == -1
    assert gains[f"masks ({refine})", "train"] == 5
    assert (gains["DeepLab", "val"], gains["DeepLab after the CRF", "val"]) == (5, 7)
    assert (("CRF marginals, exponent 4", "train") in gains) == (refine == "psa")
    assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("DeepLab ")] == [
        ["55.00", "+5.00"], ["57.00", "+7.00"],
    ]  # fmt: skip


BEST = [FUSION, FUSION, SCORE, SCORE, SEGMENTS, VOTE, SCORE, CRF_MASKS, *DEEPLAB]
OF_BEST = ("--refine", "crf", "--fuse", "x", "y", "flow.vote=true")


def test_fusion_and_vote_come_before_a_refinement(
    run: Callable[..., int], fake: FakeScripts, seeds: Path, capsys: pytest.CaptureFixture
) -> None:
    """Where a stage was stopped the same command goes on; each takes the seeds of the one before."""
    Path("experiment/y").mkdir()
    Path("experiment/y/dict").symlink_to(seeds)
    done = 0
    for script in (FUSION, VOTE, CRF_MASKS):
        fake.instead[script] = lambda folder: 137  # killed, with nothing written
        assert run(*OF_BEST) == 137
        assert fake.called() == BEST[done : BEST.index(script) + 1]
        done = BEST.index(script)
    assert run(*OF_BEST) == 0
    assert fake.called() == BEST[done:]
    assert run(*OF_BEST) == 0 and fake.called() == []
    state = json.loads(Path("experiment/x/pipeline_crf.json").read_text())
    commands = {title: " ".join(stage["command"]) for title, stage in state["stages"].items()}
    assert "--name x_fused x y" in commands["fusion, train"] and "infer.image_list=val" in commands["fusion, val"]
    assert "--name x_vote --seeds experiment/x_fused/dict" in commands["vote over segments"]
    assert "--seeds experiment/x_vote/dict" in commands["masks (crf)"]
    rows = [row["stage"] for row in state["table"]]
    assert {"fused seeds, best threshold", "seeds after the vote, best threshold", "masks (crf)"} <= {*rows}
    capsys.readouterr()
    (Path("experiment/x_vote/segments") / STAMP_FILE).write_text(
        json.dumps({"kind": "segments", "first_class": None, "method": "slic", "lists": {}, "settings": {"new": 1}})
    )
    with pytest.raises(UserError, match=r"'vote over segments' .* was made of other files in .*x_vote/segments"):
        run(*OF_BEST)


def test_thresholds_of_classes_go_to_the_first_stage_of_the_seeds(
    run: Callable[..., int], fake: FakeScripts, shapes: Path
) -> None:
    """The vote calibrates the seeds, so that the refinement after it does not; other thresholds are other settings."""
    names = (shapes / "classes.txt").read_text().split()
    write_thresholds(Path("t.json"), names, [0.4] * len(names), {})
    given = ("seeds.thresholds=t.json", "--segment", "none")
    for options, scripts in ((("flow.vote=true",), [VOTE]), ((), [CRF_MASKS])):
        shutil.rmtree("experiment/x_crf", ignore_errors=True)
        Path("experiment/x/pipeline_crf.json").unlink(missing_ok=True)
        fake.commands = []
        assert run("--refine", "crf", *options, *given) == 0
        commands = [" ".join(command) for command in fake.commands if "seeds.thresholds=t.json" in command]
        assert [script for script in (VOTE, CRF_MASKS) if any(script in command for command in commands)] == scripts
    write_thresholds(Path("t.json"), names, [0.5] * len(names), {})
    with pytest.raises(UserError, match=r"calibrated_by.0 was 0.4, is 0.5"):
        run("--refine", "crf", *given)


def test_a_score_of_other_seeds_is_made_again(run: Callable[..., int], fake: FakeScripts, seeds: Path) -> None:
    """One that another pipeline of the run has left is not taken for that of the fused seeds."""
    given = ("--refine", "crf", "--segment", "none")
    assert run(*given) == 0
    file = Path("experiment/x/eval_seeds_train.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "source": "experiment/x/dict"}))
    fake.called()
    for name in ("pipeline_crf.json", "pipeline_crf.yaml"):
        Path("experiment/x", name).unlink()
    shutil.rmtree("experiment/x_crf")
    assert run(*given) == 0 and SCORE not in fake.called()
    Path("experiment/x/pipeline_crf.json").unlink()
    shutil.rmtree("experiment/x_crf")
    assert run(*given, "--fuse", "x", str(seeds)) == 0 and fake.called().count(SCORE) == 1


def test_wrong_combinations_of_stages(run: Callable[..., int], fake: FakeScripts) -> None:
    for arguments, words in (
        (("--refine", "segments", "flow.vote=true"), "is the vote itself"),
        (("--fuse", "x"), "two or more runs"), (("--fuse", "x", "lost"), "no seeds of 'lost'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            run(*arguments)
    assert fake.called() == []


def test_an_interrupted_training_goes_on(
    run: Callable[..., int], fake: FakeScripts, capsys: pytest.CaptureFixture
) -> None:
    """With --resume where there is a checkpoint, anew where it was stopped before; its exit code is the pipeline's."""
    fake.instead[IRN] = lambda folder: (folder / "config.yaml").touch() or 143
    assert run() == 143
    assert fake.called() == STEPS["irn"][:4]

    def stop(folder: Path) -> int:
        (folder / "ckpt").mkdir()
        (folder / "ckpt" / "last.pth").touch()
        return 130

    fake.instead[IRN] = stop
    assert run() == 130
    assert fake.commands[0][-1] == "--overwrite" and fake.called() == [IRN]
    assert run() == 0
    assert fake.commands[0][-1] == "--resume" and fake.called() == STEPS["irn"][3:]
    assert "labels: complete, skipped" in capsys.readouterr().out


def test_what_another_training_left_is_never_deleted(run: Callable[..., int], fake: FakeScripts) -> None:
    """A script that refuses its run folder is called in the same way again."""
    Path("experiment/x_irn").mkdir()
    Path("experiment/x_irn/config.yaml").touch()
    for _ in range(2):
        fake.instead[IRN] = lambda folder: 1
        assert run() == 1
        assert fake.commands[-1][-1] not in ("--overwrite", "--resume") and fake.called()[-1] == IRN


def test_a_failure_names_the_stage(run: Callable[..., int], fake: FakeScripts, capsys: pytest.CaptureFixture) -> None:
    """Nothing after it runs, and nothing is in the table."""
    fake.instead[PSA_MASKS] = lambda folder: 3
    assert run("--refine", "psa") == 3
    assert fake.called() == STEPS["psa"][:-2]
    error = capsys.readouterr().err
    assert "'masks (psa)' (methods/psa/infer_aff.py) failed with exit code 3" in error and "same command" in error
    assert "table" not in json.loads(Path("experiment/x/pipeline_psa.json").read_text())
    assert run("--refine", "psa") == 0
    assert fake.called() == STEPS["psa"][-3:]


def test_output_that_is_not_whole(run: Callable[..., int], fake: FakeScripts) -> None:
    """A file that is gone is made again; a script that ends well without its files is an error."""
    assert run("--segment", "none") == 0
    assert fake.called() == STEPS["irn"][:-2]
    next(Path("experiment/x_irn/ir_label").glob("2*")).unlink()
    Path("experiment/x_irn/eval_png.json").unlink()
    assert run("--segment", "none") == 0
    assert fake.called() == [LABELS, IRN_MASKS]
    next(Path("experiment/x_irn/masks").glob("2*")).unlink()
    fake.instead[IRN_MASKS] = lambda folder: 0
    with pytest.raises(UserError, match="is incomplete"):
        run("--segment", "none")


def test_output_of_other_settings_is_refused(run: Callable[..., int], fake: FakeScripts) -> None:
    """Complete or not; seeds that were made again count, too, and their score is made anew."""
    assert run() == 0
    fake.called()
    with pytest.raises(UserError, match=r"(?s)IRN's labels.*another command.*bg_threshold=0.2.*experiment/x_irn"):
        run("irn.overrides=[labels.bg_threshold=0.2]")
    with pytest.raises(UserError, match=r"DeepLab's training.*experiment/x_irn_deeplab"):
        run("deeplab.overrides=[train.max_steps=3]")
    assert fake.called() == []
    shutil.copytree("experiment/x/dict", "experiment/x/copy")
    Path("experiment/x/dict").unlink()
    Path("experiment/x/copy").rename("experiment/x/dict")
    Stamp(SEEDS, "cti", {"checkpoint": "new.pth"}).write(Path("experiment/x/dict"))
    with pytest.raises(UserError, match="other files in experiment/x/dict"):
        run()
    assert fake.called() == [SCORE, SCORE]
    for folder in ("x_irn", "x_irn_deeplab"):
        shutil.rmtree(Path("experiment") / folder)
    assert run() == 0
    assert fake.called() == STEPS["irn"][2:]


def test_what_was_changed_by_hand_is_seen(run: Callable[..., int], fake: FakeScripts, shapes: Path) -> None:
    """A YAML, a threshold, masks, weights, seeds, an image: nothing of the old table is passed off as new."""
    irn = (CONFIG_DIR / "irn_demo.yaml").read_text()
    Path("irn.yaml").write_text(irn)
    shutil.copytree(shapes, "data")
    shutil.copytree("experiment/x/dict", "experiment/x/copy")
    Path("experiment/x/dict").unlink()
    Path("experiment/x/copy").rename("experiment/x/dict")
    given = ("irn.exp=irn.yaml", "data.root=data", "data.classes=data/classes.txt")
    assert run(*given) == 0 and fake.called() == STEPS["irn"]
    assert run(*given) == 0 and fake.called() == []
    assert run(*given, "eval.fixed_threshold=0.3") == 0
    assert fake.called() == [SCORE, SCORE]  # the stages of refinement do not depend on it

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words):
            run(*given)
        fake.called()

    edited = yaml.safe_load(irn)
    edited["walk"] = {**edited.get("walk", {}), "beta": 3}
    Path("irn.yaml").write_text(yaml.safe_dump(edited))
    refused(r"'masks \(irn\)'.*settings.config.walk.beta was .*, is 3")
    Path("irn.yaml").write_text(irn)
    assert run(*given) == 0
    fake.called()
    for file, title in (
        ("x_irn/masks/{}.png", r"masks \(irn\)"), ("x_irn/ckpt/001res50_irn.pth", "IRN's training"),
        ("x/dict/{}.npy", "IRN's labels"),
    ):  # fmt: skip
        path = Path("experiment", file.format(fake.lists["train"][3]))
        content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        path.write_bytes(b"other")
        refused(f"{title}.*of other files in {path.parent}")
        path.write_bytes(content)
        os.utime(path, ns=times)
    image = Path("data/JPEGImages", f"{fake.lists['train'][0]}.jpg")
    os.utime(image, ns=(1, 1))
    refused("IRN's labels.*settings.images was")


def test_beginning_with_masks(run: Callable[..., int], fake: FakeScripts) -> None:
    """They have to be there; seeds need not."""
    with pytest.raises(UserError, match=r"--from masks.*experiment/x_crf/masks"):
        run("--from", "masks", "--refine", "crf")
    fake.make(CRF_MASKS, Path("experiment/x_crf"), [])
    Path("experiment/x/dict").unlink()
    assert run("--from", "masks", "--refine", "crf") == 0
    assert fake.called() == DEEPLAB


def test_several_processes(run: Callable[..., int], fake: FakeScripts) -> None:
    """Every script is started by the launcher; the number of processes changes nothing that was made."""
    launcher = ["-m", "common.run.launch", *TORCHRUN[2:]]
    assert run("--nproc", 2) == 0
    assert all(command[: len(launcher)] == launcher for command in fake.commands)
    assert fake.called() == STEPS["irn"]
    assert run() == 0
    assert fake.called() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "nowhere"), "no folder of seeds nowhere"),
        (("lists.score=val",), "6 images that are not in lists.train=train"),
        (("lists.val=nothing",), "no image list 'nothing'"),
        (("irn.overrides=[walk.beat=3]",), "unknown.*walk.beat"),
        (("deeplab.exp=nothing",), "no configuration 'nothing'"),
        (("--nproc", "0"), "at least one"),
        (("--refine", "other"), "flow.refine is 'other'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    run: Callable[..., int], fake: FakeScripts, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert fake.called() == []


def test_without_true_masks(run: Callable[..., int], fake: FakeScripts, shapes: Path, tmp_path: Path) -> None:
    """Nothing is scored, and nothing waits for a score."""
    shutil.copytree(shapes, "blind", ignore=shutil.ignore_patterns("SegmentationClass"))
    fake.score = lambda *arguments: None
    assert run("data.root=blind") == 0
    assert fake.called() == [LABELS, IRN, IRN_MASKS, *DEEPLAB]
    assert run("data.root=blind") == 0
    assert fake.called() == []
    assert json.loads(Path("experiment/x/pipeline_irn.json").read_text())["table"] == []


@pytest.mark.parametrize("content", ["{", "[]", '{"list": "train", "images": 3}'])
def test_a_damaged_score_is_named(run: Callable[..., int], content: str) -> None:
    assert run() == 0
    Path("experiment/x_irn/eval_png.json").write_text(content)
    with pytest.raises(UserError, match=r"experiment/x_irn/eval_png\.json"):
        run()


@pytest.mark.parametrize(("script_text", "code"), [("trap 'exit 7' TERM", 7), ("trap 'exit 0' TERM", 143), (":", 143)])
def test_a_signal_is_handed_on(tmp_path: Path, script_text: str, code: int) -> None:
    """The stage's exit code is returned; where it ends well, that of the signal, and nothing more is started."""
    ready = tmp_path / "ready"

    def send() -> None:
        while not ready.is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with StageRunner() as runner:
        threading.Thread(target=send).start()
        assert runner.run(["sh", "-c", f"{script_text}; touch {ready}; while :; do sleep 0.02; done"]) == code
        assert runner.run(["touch", str(tmp_path / "after")]) == 143
    assert signal.getsignal(signal.SIGTERM) is before and not (tmp_path / "after").exists()


def test_a_signal_leaves_no_process(tmp_path: Path) -> None:
    """Children that a killed stage does not take along, such as those of a pool, end with it."""
    pid_file = tmp_path / "pid"
    started = f"sleep 60 & echo $! >{pid_file}.new; mv {pid_file}.new {pid_file}; wait"

    def send() -> None:
        while not pid_file.is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    with StageRunner() as runner:
        threading.Thread(target=send).start()
        assert runner.run(["sh", "-c", started]) == 143
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    until = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.02)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_exit_codes() -> None:
    with StageRunner() as runner:
        assert [runner.run(["sh", "-c", text]) for text in ("exit 0", "exit 5", "kill -KILL $$")] == [0, 5, 137]


def test_a_second_stage_is_not_started_after_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The message says by which signal it was stopped, and where."""
    monkeypatch.setattr(StageRunner, "run", lambda runner, command: runner._hand_on(2, None) or 130)
    stages = [Stage(name, "x.py", (), tmp_path / name, lambda: False, tmp_path) for name in ("first", "second")]
    assert carry_out(stages, 1, tmp_path / "state.json") == 130
    said = capsys.readouterr()
    assert "stopped by SIGINT in the stage 'first'" in said.err and "second" not in said.out


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("pipeline_*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_every_shipped_pipeline_are_those_of_its_scripts(path: Path) -> None:
    """Each names experiments that there are and keys that they have, of the same data set."""
    config = load_config(PipelineConfig, path)
    assert path.stem.endswith((config.flow.refine, "crt", "best"))
    before = [kind for kind, is_used in (("fusion", config.flow.fuse), ("segments", config.flow.vote)) if is_used]
    for kind in (*before, config.flow.refine, "deeplab"):
        stage = getattr(config, kind)
        own = load_config(KINDS[kind].config_class(), CONFIG_DIR / f"{stage.exp}.yaml", stage.overrides)
        assert (own.data.dataset, own.data.root) == (config.data.dataset, config.data.root)
        assert kind != "deeplab" or own.train.eval_steps == 0


def test_table_of_pipelines(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One after the other; too small a gain of any of them is a failure."""
    for refine in ("crf", "irn"):
        assert run("--refine", refine) == 0
    arguments = ("--name", "x", "--refine", "crf", "irn")
    assert call(monkeypatch, "pipeline_table", *arguments, "--gain", 5) == 0
    assert capsys.readouterr().out.count("DeepLab after the CRF") >= 2
    assert call(monkeypatch, "pipeline_table", *arguments, "--gain", 5.1) == 1
    assert "FAILED: irn: masks (irn) is +5.00" in capsys.readouterr().out
    file = Path("experiment/x/pipeline_irn.json")
    content = json.loads(file.read_text())
    content["table"] = [
        row | {"gain": min(row["gain"], 5.0 if "masks" in row["stage"] else 0.0)} for row in content["table"]
    ]
    file.write_text(json.dumps(content))
    assert call(monkeypatch, "pipeline_table", *arguments) == 0
    assert call(monkeypatch, "pipeline_table", *arguments, "--gain", 5) == 1
    assert "FAILED: irn: DeepLab" in capsys.readouterr().out
    file.write_text('{"stages": {}}')
    with pytest.raises(UserError, match="has no table"):
        call(monkeypatch, "pipeline_table", *arguments)


def crf(monkeypatch: pytest.MonkeyPatch, shapes: Path, seeds: Path, *arguments: object) -> int:
    """Calls scripts/crf_masks.py for the run ``m``."""
    data = (f"data.root={shapes}", f"data.classes={shapes}/classes.txt", "runtime.num_workers=0")
    given = ("--name", "m", "--exp", "crf_demo", "--seeds", seeds, *data, *arguments)
    return call(monkeypatch, "crf_masks", *given)


def test_masks_by_crf_alone(
    shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Masks of all images and their score; an interrupted call goes on, one with another exponent is refused."""
    monkeypatch.chdir(tmp_path)
    assert crf(monkeypatch, shapes, seeds) == 0
    result, masks = json.loads(Path("experiment/m/eval_png.json").read_text()), contents("experiment/m/masks")
    assert (result["list"], result["images"], len(masks)) == ("train", 24, 24) and result["best"]["mIoU"] > 60
    next(Path("experiment/m/masks").glob("2*")).unlink()
    assert crf(monkeypatch, shapes, seeds) == 0
    assert "1 masks written, 23 were there" in capsys.readouterr().out
    assert contents("experiment/m/masks") == masks
    assert "--overwrite" in failure(capsys, crf, monkeypatch, shapes, seeds, "--alpha", 12)
    assert crf(monkeypatch, shapes, seeds, "--alpha", 12, "--overwrite") == 0
    area = [sum(int((read_mask(file) > 0).sum()) for file in Path("experiment/m/masks").glob("*.png"))]
    assert crf(monkeypatch, shapes, seeds, "--alpha", 2, "--overwrite", "infer.eval_list=") == 0
    area.append(sum(int((read_mask(file) > 0).sum()) for file in Path("experiment/m/masks").glob("*.png")))
    assert area[0] > area[1]  # the larger the exponent, the less background


def test_seeds_that_crf_cannot_use(shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that the data set does not have, a wrong size, a missing file; an empty seed is background."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(seeds, "own")
    image_id = read_list(shapes / "ImageSets/Segmentation/train.txt", "voc12")[0]
    shape = read_mask(shapes / "SegmentationClass" / f"{image_id}.png").shape
    one = write_lines(Path("one.txt"), [image_id])
    lists = ("--infer_list", one, "infer.eval_list=")
    for seed, message in (({6: np.ones(shape)}, r"classes \[6\] of 6"), ({0: np.ones((3, 4))}, "maps of")):
        write_seed("own", image_id, seed)
        with pytest.raises(UserError, match=message):
            crf(monkeypatch, shapes, "own", *lists)
    write_seed("own", image_id, {})
    assert crf(monkeypatch, shapes, "own", *lists) == 0
    mask = Path(f"experiment/m/masks/{image_id}.png")
    assert read_mask(mask).max() == 0
    write_seed("own", image_id, {0: np.full(shape, 0.3), 1: np.full(shape, 0.6)})
    areas = []
    names = (shapes / "classes.txt").read_text().split()
    for thresholds in ([0.5, 0.5], [0.05, 0.95]):  # by these, the class of the higher value is below its own
        write_thresholds(Path("t.json"), names[:2], thresholds, {})
        assert crf(monkeypatch, shapes, "own", *lists, "seeds.thresholds=t.json", "--overwrite") == 0
        areas.append(np.bincount(read_mask(mask).ravel(), minlength=3).argmax())
    assert areas == [2, 1]
    with pytest.raises(UserError, match=r"other settings: calibrated_by.0 was 0.05, is nothing"):
        crf(monkeypatch, shapes, "own", *lists)
    with pytest.raises(UserError, match=r"no thresholds lost.json"):
        crf(monkeypatch, shapes, "own", *lists, "seeds.thresholds=lost.json")
    (Path("own") / f"{image_id}.npy").unlink()
    with pytest.raises(UserError, match="1 of the 1 images"):
        crf(monkeypatch, shapes, "own", *lists)


class OneOfTwo(Processes):
    """A process that does its share without waiting for the other."""

    def barrier(self) -> None:
        """Does not wait."""

    def gather_objects(self, value: object) -> list:
        """What this process has."""
        return [value]


def test_two_processes_share_the_masks(
    shapes: Path, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each makes half of them; together they are those of one."""
    monkeypatch.chdir(tmp_path)
    assert crf(monkeypatch, shapes, seeds, "infer.eval_list=") == 0
    masks = contents("experiment/m/masks")
    shutil.rmtree("experiment/m")
    for rank, count in ((0, 12), (1, 24)):
        monkeypatch.setattr("common.run.processes.start_processes", lambda rank=rank: OneOfTwo(rank, rank, 2))
        assert crf(monkeypatch, shapes, seeds, "infer.eval_list=") == 0
        assert len(contents("experiment/m/masks")) == count
    assert contents("experiment/m/masks") == masks
