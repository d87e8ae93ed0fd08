"""Reproduces a paper's numbers: trains, infers, refines and scores as the paper did, then compares with its table.

    python scripts/reproduce.py cti                        CTI on PASCAL VOC 2012
    python scripts/reproduce.py crt --dataset cub          CRT's object localisation
    python scripts/reproduce.py cti --dry-run              the stages, their commands, and the hours they will take
    python scripts/reproduce.py cti --dataset demo         generated images, in minutes on two CPU cores
    python scripts/reproduce.py toco data.root=/data/VOC   settings of all trainings and inferences

The recipes are configs/reproduce/*.yaml. Whatever is missing is said at once, before the first stage. The same command
goes on after an interruption. experiment/NAME_reproduction/reproduction.json holds results, commit, versions, device,
hashes of lists and weights, and of each stage the seconds and the peak memory of a process and on a GPU, in bytes;
scripts/reproductions_page.py shows them.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from common.data.lists import LIST_DIR
from common.pipeline.plan import GPUS, Plan, gpu
from common.pipeline.recipe import Recipe, Step, recipe_path, table
from common.pipeline.stages import StageRunner
from common.run.command import script_parser
from common.run.config import config_path
from common.run.errors import UserError, run_script
from common.run.files import ROOT, write_json
from common.run.folder import RunFolder
from common.run.gpu_memory import gpu_memory_of_scripts
from common.run.progress import progress
from common.run.provenance import digest, provenance
from common.run.text import read_json_object

WEIGHTS = (".pth", ".pt", ".safetensors")
RECORD = "reproduction.json"
SHARE = 0.35  # of a GPU's peak, as in scripts/plan.py


def main() -> int:
    """Command line → stages → table and record. Returns the exit code."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("method", nargs="?", default="", help="cti, pcss, dig, toco, toco_vit or crt")
    add("overrides", nargs="*", metavar="key=value", help="settings of all trainings and inferences")
    add("--dataset", default="voc12", help="voc12, coco14, cub or demo (default: %(default)s)")
    add("--name", default="", help="the run (default: METHOD_DATASET)")
    add("--dry-run", action="store_true", help="print stages, commands and planned hours")
    add("--gpu", default="a100", help=f"GPU of the dry run: {', '.join(GPUS)}, or GB,TFLOPS (default: %(default)s)")
    add("--nproc", type=int, default=1, help="processes of every script, by torchrun (default: 1)")
    args = parser.parse_intermixed_args()
    if args.nproc < 1:
        raise UserError(f"--nproc {args.nproc}: at least one process")
    recipe = Recipe.read(recipe_path(args.method, args.dataset))
    run = RunFolder(args.name or recipe.name)
    if args.dry_run:
        print_plan(recipe, run.name, args.overrides, args.gpu)
        return 0
    code = Reproduction(recipe, run, args.overrides, args.nproc).carry_out()
    if code == 0:
        record = record_folder(run).path / RECORD
        print(f"\n{table(read_json_object(record, 'the record of the reproduction')['results'])}")
        print(f"written: {record} (to publish it, copy it to docs/reproductions/{recipe.name}.json)")
    return code


def record_folder(run: RunFolder) -> RunFolder:
    """The folder of the record: a training begins in an empty folder of its own."""
    return RunFolder(f"{run.name}_reproduction")


class Reproduction:
    """Carries a recipe out, and keeps its record; see the module."""

    def __init__(self, recipe: Recipe, run: RunFolder, overrides: Sequence[str], nproc: int) -> None:
        self.recipe = recipe
        self.run = run
        self.overrides = list(overrides)
        self.record = record_folder(run)
        self.file = self.record.path / RECORD
        self.launcher = ["-m", "common.run.launch", "--standalone", "--nproc_per_node", str(nproc)] * (nproc > 1)

    def carry_out(self) -> int:
        """Runs the stages that are not done; the exit code of the first that fails, else 0.

        Raises:
            UserError: something is missing, or the run was begun by another recipe or other settings.
        """
        stages = self.recipe.stages
        record = self._record()
        done: list[dict[str, Any]] = record["stages"]
        with StageRunner() as runner:
            is_new = False  # a stage after one that has run is called again, and does what has become stale
            for number, step in enumerate(stages):
                if not step.prepares and not is_new:
                    self.require(stages[number:])
                words = step.words(self.run.name, self.overrides)
                head = f"[{number + 1}/{len(stages)}] {step.title}"
                if number < len(done) and done[number]["done"] and not is_new:
                    print(f"{head}: done, skipped", flush=True)
                    continue
                is_new = True
                if number == len(done):
                    done.append(
                        {"title": step.title, "command": words, "seconds": 0.0, "peak_memory": 0, "done": False}
                    )
                entry = done[number]
                print(f"{head}\n$ {shlex.join(['python', *self.launcher, *words])}", flush=True)
                self._write(record)
                started = time.monotonic()
                with gpu_memory_of_scripts() as gpu_memory:
                    code = runner.run([sys.executable, *self.launcher, *self._absolute(words), *self._resume(step)])
                    needed = gpu_memory()
                entry["seconds"] = round(entry["seconds"] + time.monotonic() - started, 1)
                entry["peak_memory"] = max(entry["peak_memory"], runner.peak_memory)
                if needed:
                    entry["peak_gpu_memory"] = max(entry.get("peak_gpu_memory", 0), needed)
                entry["done"] = code == 0
                self._write(record)
                if code:
                    print(
                        f"error: the stage {step.title!r} ended with {code}; the same command goes on", file=sys.stderr
                    )
                    return code
        record["results"] = list(self.results())
        self._write(record)
        return 0

    def require(self, stages: Sequence[Step]) -> None:
        """Asks all stages that follow for what they miss; files that earlier stages make do not count.

        Raises:
            UserError: data, lists or weights are missing; all of them are named.
        """
        missing: list[str] = []
        for step in progress(stages, "looking for data and weights"):
            if step.prepares:
                continue
            words = step.words(self.run.name, self.overrides)
            command = [*self._absolute(words), *self._configuration(words), *self._resume(step), "--check"]
            said = subprocess.run([sys.executable, *command], capture_output=True, text=True).stderr
            lines = [line.removeprefix("  - ").removeprefix("error: ") for line in said.splitlines()]
            missing += [line for line in lines if line and not _is_made_here(line) and line not in missing]
        if missing:
            raise UserError("missing for this reproduction:" + "".join(f"\n  - {line}" for line in missing))

    def results(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        for result in self.recipe.results:
            value, interval = result.measured(self.run.name)
            low, high = result.expected or (None, None)
            row = {"what": result.what, "published": result.published, "source": result.source, "here": value}
            within = None if low is None or high is None else low <= value <= high
            yield {**row, "interval": interval, "expected": result.expected, "within": within}

    def _record(self) -> dict[str, Any]:
        settings = {"recipe": asdict(self.recipe), "overrides": self.overrides}
        settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        if not self.file.is_file():
            return {**settings, "stages": [], "results": []}
        record = read_json_object(self.file, "the record of the reproduction")
        if {key: record.get(key) for key in settings} != settings:
            raise UserError(
                f"{self.file} is of another recipe or of other settings ({record.get('overrides')}); use another --name"
            )
        return record

    def _write(self, record: dict[str, Any]) -> None:
        self.record.create()
        commands = [step.words(self.run.name, self.overrides) for step in self.recipe.stages]
        write_json(self.file, {**record, **provenance(), **self._hashes(commands)})

    def _hashes(self, commands: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
        """SHA-256 of the shipped lists, of weights that the commands name, and of all in ``pretrained/``."""
        named = {ROOT / word.rpartition("=")[2] for words in commands for word in words[1:]}
        weights = {*named, *(ROOT / "pretrained").iterdir()}
        lists = [path for name in self.recipe.lists for path in LIST_DIR.glob(f"*/{name}.txt")]
        return {
            "lists": {str(path.relative_to(LIST_DIR)): digest(path) for path in sorted(lists)},
            "weights": {
                path.name: digest(path) for path in sorted(weights) if path.is_file() and path.suffix in WEIGHTS
            },
        }

    def _configuration(self, words: Sequence[str]) -> list[str]:
        """The experiment of a stage's run, where the run is not there to tell it: that of the training before it."""
        name = words[words.index("--name") + 1]
        if RunFolder(name).config.is_file() or "--exp" in words or "--data" in words:
            return []
        for step in self.recipe.stages:
            others = step.words(self.run.name, [])
            if "--exp" in others and others[others.index("--name") + 1] == name:
                exp = others[others.index("--exp") + 1]
                return ["--data", str(config_path(exp))] if words[0] == "evaluation.py" else ["--exp", exp]
        return []

    def _absolute(self, words: Sequence[str]) -> list[str]:
        return [str(ROOT / words[0]), *words[1:]]

    def _resume(self, step: Step) -> list[str]:
        last = step.checkpoint(self.run.name)
        return ["--resume"] if last and last.is_file() else []


def print_plan(recipe: Recipe, name: str, overrides: Sequence[str], card: str) -> None:
    """Stages, commands, and the hours of the trainings on a GPU."""
    chosen = gpu(card)
    print(f"{recipe.title}: run {name}, hours on {chosen.name} at {SHARE:.0%} of its peak\n")
    hours = 0.0
    for number, step in enumerate(recipe.stages, 1):
        time_needed = ""
        if step.plan:
            plan = Plan(step.plan, [text for text in overrides if not text.startswith("data.root=")], *_size(step.plan))
            fit = plan.fit(chosen, SHARE)
            own = plan.course.steps * fit.seconds / 3600 if fit else 0.0
            hours += own
            time_needed = f"   # {own:.1f} h, train.accumulation={fit.accumulation}" if fit else "   # does not fit"
        print(f"[{number}/{len(recipe.stages)}] {step.title}")
        print(f"    python {shlex.join(step.words(name, overrides))}{time_needed}")
    print(f"\ntrainings: {hours:.1f} hours; validation, inference, CRFs and random walks come on top")
    print(f"\n{table(recipe.planned_rows())}")


def _size(exp: str) -> tuple[int, int]:
    """Images and classes of the demo, whose images may not be there yet; else those of the lists."""
    return (1500, 6) if exp.endswith("_demo") else (0, 0)


def _is_made_here(line: str) -> bool:
    """Whether a line of ``--check`` is a heading, or about a file that an earlier stage makes."""
    return "missing:" in line or "experiment/" in line or line.startswith("no run")


if __name__ == "__main__":
    run_script(main)
