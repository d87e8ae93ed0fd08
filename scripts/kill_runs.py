"""Kills scripts at random moments (kill -9), goes on with the same command, and compares with an undisturbed run.

python scripts/kill_runs.py                                    all kinds of scripts: 3 kills each
python scripts/kill_runs.py --kinds training --kills 50 --seed 1     more kills of one kind

Works in a folder of its own (--folder, which must be new or empty) on generated images, with tiny networks. After every
kill, no process of the script may live and, at the end, no temporary file may be left; results must be bitwise those of
the undisturbed run. Exit code 1 where they are not.
"""

import importlib
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from common.run.command import script_parser
from common.run.errors import UserError, preview, run_script
from common.run.files import ROOT, write_json
from common.run.lock import unlock_all

KINDS = ("training", "inference", "evaluation", "pipeline", "segments")
OUTPUT, MARK = "output.txt", "KILL_RUNS"
IMPORTED = (  # by every process, so once for all
    "common.train.trainer", "common.seeds.script", "common.data.augment", "methods.cti.model", "methods.cti.losses",
    "methods.cti.memory", "matplotlib.figure", "torch.utils.tensorboard",
)  # fmt: skip
PATIENCE = 8.0  # seconds in which processes of a killed script have ended: loaders ask for their parent every 5
TINY: dict[str, Any] = {
    "model": {
        "pretrained": "none", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
        "drop_path": 0.3,
    },
    "loss": {"swap_idx": 1, "n_layers": 2, "memory_size": 3},
    "optim": {"lr": 1e-3, "base_batch": 4, "warmup_epochs": 1},
    "train": {
        "image_list": "train", "val_list": "val", "epochs": 3, "batch_size": 4, "validate_from": 1, "print_freq": 1,
        "save_steps": 2,
    },
    "infer": {"image_list": "train", "eval_list": "", "num_workers": 1, "batch_size": 1},
    "runtime": {"num_workers": 1, "device": "cpu"},
}  # fmt: skip


class Killer:
    """Runs scripts to their end, or kills them at random moments on the way."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator
        self.kills = 0
        self.orphans = 0

    def run(self, command: Sequence[str]) -> float:
        """Runs a script undisturbed; the seconds it takes.

        Raises:
            UserError: it fails; its last lines are shown.
        """
        started = time.monotonic()
        process = start(command)
        if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
            lines = "\n".join(Path(OUTPUT).read_text(errors="replace").splitlines()[-5:])
            raise UserError(f"{' '.join(command)} ended with code {code}:\n{lines}")
        return time.monotonic() - started

    def kill(self, command: Sequence[str], seconds: float) -> bool:
        """Starts a script, and kills it within so many seconds; whether it was still running."""
        mark = f"{os.getpid()}.{self.kills}.{self.generator.random()}"
        process = start(command, mark)
        until = time.monotonic() + self.generator.uniform(0, seconds)
        while time.monotonic() < until:
            if os.waitpid(process, os.WNOHANG)[0]:
                return False
            time.sleep(0.005)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        self.kills += 1
        self.orphans += len(left_over(process, mark))
        return True


def start(command: Sequence[str], mark: str = "") -> int:
    """Starts a script in a process forked from this one, which has imported everything; the process's id.

    Args:
        mark: value of the variable ``KILL_RUNS`` in its environment and that of all processes that it starts.
    """
    process = os.fork()
    if process:
        return process
    os.setsid()
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ |= {MARK: mark, "OMP_NUM_THREADS": "1"}  # of one thread sums are the same in every run
    script, *arguments = command
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        unlock_all()  # as at the end of any process
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(1)


def left_over(process: int, mark: str) -> list[int]:
    """Processes of a killed script that still live after the time that they are given."""
    until = time.monotonic() + PATIENCE
    while found := _living(process, mark):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return found


def _living(session: int, mark: str) -> list[int]:
    """Living processes of a session, or with a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            is_marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended in between, or another user's
            continue
        if state != "Z" and (int(own) == session or is_marked):
            found.append(int(folder.name))
    return found


def results(folder: Path) -> dict[str, Any]:
    """All files of a run as values that are equal where the results are: without times, logs and curves."""
    from common.run.weights import load_torch

    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or "tensorboard/" in name or path.name in ("log.txt", "config.yaml"):
            continue
        if path.suffix == ".pth":
            found[name] = canonical(load_torch(path))
        elif path.name == "metrics.jsonl":
            found[name] = [_untimed(line) for line in path.read_text().splitlines()]
        elif path.name.startswith("pipeline_"):
            found[name] = json.loads(path.read_text())["table"] if path.suffix == ".json" else ""
        elif path.suffix == ".json":
            found[name] = {**json.loads(path.read_text()), "fingerprint": None, "images": None}  # with times of files
        elif not (path.suffix == ".png" and path.name.startswith("eval_")):
            found[name] = path.read_bytes()
    return found


def differing(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the files that are in one of two results alone, or differ in them."""
    return sorted(name for name in expected | found if name not in expected or found.get(name) != expected[name])


def canonical(content: Any) -> Any:
    """Nested containers of tensors as containers of bytes."""
    if isinstance(content, dict):
        return {str(key): canonical(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [canonical(value) for value in content]
    if hasattr(content, "numpy"):
        return str(content.dtype), tuple(content.shape), content.numpy().tobytes()
    return content


def _untimed(line: str) -> str:
    return json.dumps({key: value for key, value in json.loads(line).items() if key != "seconds_per_step"})


def commands(kind: str) -> list[list[str]]:
    """The command of a kind; for a training also the one that resumes it."""
    train = ["methods/cti/train_trm.py", "--name", "run"]
    pipeline = ["scripts/run_pipeline.py", "--name", "run", "--exp", "pipe.yaml"]
    scripts = {
        "training": [[*train, "--exp", "tiny.yaml"], [*train, "--resume"]],
        "inference": [["methods/cti/infer_trm.py", "--name", "run", "--dict", "--crf", "--alphas", "6"]],
        "evaluation": [["evaluation.py", "--name", "run", "--dict_dir", "dict", "--list", "train"]],
        "pipeline": [[*pipeline, "--refine", "crf", "--segment", "none"]],
        "segments": [[*pipeline, "--refine", "segments", "--segment", "none", "--fuse", "run", "experiment/copy"]],
    }  # fmt: skip
    return [[str(ROOT / script), *arguments] for script, *arguments in scripts[kind]]


def outputs(kind: str) -> list[str]:
    """What a kind writes, relative to ``experiment/``: deleted before it is begun anew."""
    return {
        "training": ["run"], "inference": ["run/dict", "run/crf"],
        "evaluation": ["run/eval_cam.json", "run/eval_cam.csv", "run/eval_cam.png"],
        "pipeline": ["run/pipeline_crf.json", "run/eval_seeds_train.json", "run_crf"],
        "segments": ["run/pipeline_segments.json", "run/eval_seeds_train.json", "run_fused", "run_segments"],
    }[kind]  # fmt: skip


def clear(kind: str) -> None:
    """Deletes what a kind has written."""
    for name in outputs(kind):
        path = Path("experiment", name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check(kind: str, kills: int, generator: random.Random) -> dict[str, Any]:
    """Runs a kind undisturbed, then with kills until there were enough; the figures."""
    killer = Killer(generator)
    first, *again = commands(kind)
    seconds = killer.run(first)
    expected, rounds = results(Path("experiment")), 0
    changes: list[list[str]] = []
    while killer.kills < kills:
        clear(kind)
        rounds += 1
        command = first
        for _ in range(generator.randint(1, 6)):
            if killer.kills >= kills or not killer.kill(command, 1.1 * seconds):
                break
            is_begun = Path("experiment/run/ckpt/last.pth").is_file()
            command = again[0] if again and is_begun else [*first, *(["--overwrite"] if again and _is_there() else [])]
        if not again or not _is_finished():
            killer.run(command)
        if changed := differing(expected, results(Path("experiment"))):
            changes.append(changed)
            print(f"{kind}, round {rounds}: different are {preview(changed)}", flush=True)
    temporary = [str(path) for path in Path("experiment").rglob(".*") if path.suffix in (".tmp", ".lock")]
    temporary += [str(path) for path in Path("experiment").rglob(".lock")]
    return {
        "kills": killer.kills, "rounds": rounds, "different results": len(changes), "orphans": killer.orphans,
        "temporary files left": len(temporary), "seconds of an undisturbed run": round(seconds, 1),
    }  # fmt: skip


def _is_there() -> bool:
    """Whether a training has begun to write."""
    return any(path.name != ".lock" for path in Path("experiment/run").glob("*"))


def _is_finished() -> bool:
    """Whether a training has come to its end, so that there is nothing to resume."""
    log = Path("experiment/run/log.txt")
    return log.is_file() and "done: " in log.read_text()


def prepare(folder: Path) -> None:
    """Makes images and configurations, and changes into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    shapes = [str(ROOT / "scripts/make_shapes.py"), "--root", "shapes", "--train", "12", "--val", "4", "--size", "48"]
    Killer(random.Random()).run([*shapes, "--workers", "1"])
    data = {"dataset": "voc12", "root": "shapes", "classes": "shapes/classes.txt", "labels": "shapes/Annotations"}
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, "data": data}))
    lists = {"train": "train", "score": "train", "val": "val"}
    kinds = ("crf", "segments", "fusion")
    stages = {kind: {"exp": f"{kind}_demo", "overrides": ["runtime.num_workers=1"]} for kind in kinds}
    Path("pipe.yaml").write_text(yaml.safe_dump({"data": data, "lists": lists, **stages}))


def main() -> int:
    """Command line → figures of every kind; 1 if anything was lost."""
    parser = script_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which scripts (default: all)")
    parser.add_argument("--kills", type=int, default=3, help="kills of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder to work in (default: a temporary one)")
    args = parser.parse_args()
    if args.folder and args.folder.exists() and any(args.folder.iterdir()):
        raise UserError(f"{args.folder} is not empty; --folder names a new one")
    home = Path.cwd()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as temporary:
        prepare((args.folder or Path(temporary)).absolute())
        generator, found = random.Random(args.seed), {}
        for kind in KINDS:  # each needs what those before have made
            if kind == "segments" and kind in args.kinds:
                shutil.copytree("experiment/run/dict", "experiment/copy")  # a second run to fuse
            if kind in args.kinds:
                found[kind] = check(kind, args.kills, generator)
                print(f"{kind}: " + ", ".join(f"{value} {name}" for name, value in found[kind].items()), flush=True)
            elif any(KINDS.index(kind) < KINDS.index(wanted) for wanted in args.kinds):
                Killer(generator).run(commands(kind)[0])
        write_json(Path("figures.json"), found)
        os.chdir(home)
    wrong = ("different results", "orphans", "temporary files left")
    return int(any(figures[name] for figures in found.values() for name in wrong))


if __name__ == "__main__":
    run_script(main)
