"""Measures the start of scripts against `import torch` alone; prints rows of a Markdown table.

    python scripts/benchmark_startup.py                          # this copy of the project
    python scripts/benchmark_startup.py --other ../before        # and another one (a git worktree) beside it
    python scripts/benchmark_startup.py --no-bytecode            # where Python can neither read nor write bytecode

Every command is a process of its own. All commands of all copies run alternating; CPU seconds (user and system) and
peak memory are the least of all turns, ratios are to `import torch` in the same run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.run.errors import run_script
from common.run.files import ROOT

OWN = "data.root={data} data.classes={data}/classes.txt"
COMMANDS = {  # {data}: a data set of make_shapes.py, {new}: a folder that does not exist; run: a run with epoch 0
    "train_trm.py --help": "methods/cti/train_trm.py --help",
    "train_trm.py, mistyped --name": "methods/cti/train_trm.py --nmae exp",
    "train_trm.py, unknown key": "methods/cti/train_trm.py --name exp train.epoch=3",
    "train_trm.py, no data set": "methods/cti/train_trm.py --name new",
    "train_trm.py, no such list": f"methods/cti/train_trm.py --name new {OWN} train.image_list=trian",
    "train_irn.py, no label maps": f"methods/irn/train_irn.py --name new {OWN} train.image_list=train "
    "train.displacement_list=train model.pretrained=none",
    "infer_trm.py --help": "methods/cti/infer_trm.py --help",
    "infer_trm.py, no such epoch": "methods/cti/infer_trm.py --name run --load_epo 59 --dict",
    "infer_trm.py, no such list": "methods/cti/infer_trm.py --name run --dict infer.image_list=trian",
    "evaluation.py --help": "evaluation.py --help",
    "evaluation.py, no such list": "evaluation.py --name exp --dict_dir . --list trian --data {data}/own.yaml",
    "evaluation.py, 20 masks": "evaluation.py --name exp --task png --dict_dir {data}/SegmentationClass --list val "
    "--data {data}/own.yaml --num_workers 1",
    "check_data.py --help": "scripts/check_data.py --help",
    "check_data.py, no second list": f"scripts/check_data.py {OWN} --val_list vla",
    "make_shapes.py, 20 images": "scripts/make_shapes.py --root {new} --train 10 --val 10 --size 32 --workers 1",
}
# Waits for the command and prints what the kernel counted for it and its children.
METER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
"""


@dataclass(frozen=True)
class Cost:
    """CPU seconds and peak memory in MB of a process; of several runs the least of each."""

    seconds: float = float("inf")
    memory: float = float("inf")

    def least(self, other: "Cost") -> "Cost":
        """The smaller value of each."""
        return Cost(min(self.seconds, other.seconds), min(self.memory, other.memory))


def main() -> None:
    """Command line → all commands, alternating → table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--other", type=Path, help="folder of another copy of the project, which is measured as 'before'")
    add("--turns", type=int, default=5, help="runs of every command (default: %(default)s)")
    add("--no-bytecode", action="store_true", help="neither the project's nor that of packages: all is compiled anew")
    args = parser.parse_args()
    copies = {"now": ROOT} | ({"before": args.other.resolve()} if args.other else {})
    with tempfile.TemporaryDirectory() as place:
        costs = measure(copies, Path(place), args.turns, args.no_bytecode)
    torch = costs["now", "import torch"]
    print(f"import torch: {torch.seconds:.2f} s of CPU, {torch.memory:.0f} MB; ratios to these, CPU / memory\n")
    names = sorted(copies)  # before, now
    print(f"| command | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for title in COMMANDS:
        cells = [costs[name, title] for name in names]
        texts = (f"{cost.seconds / torch.seconds:.2f} / {cost.memory / torch.memory:.2f}" for cost in cells)
        print(f"| {title} | {' | '.join(texts)} |")


def measure(copies: dict[str, Path], place: Path, turns: int, no_bytecode: bool) -> dict[tuple[str, str], Cost]:
    """The cost of every command for every copy, by their names; a first turn is not counted."""
    data = place / "data"
    made = [sys.executable, str(ROOT / "scripts/make_shapes.py"), "--root", str(data), "--train", "20", "--val", "20"]
    subprocess.run(made, check=True, capture_output=True)
    (data / "own.yaml").write_text(f"data: {{root: {data}, classes: {data}/classes.txt}}")
    (place / "experiment" / "exp").mkdir(parents=True)
    run = place / "experiment" / "run"
    (run / "ckpt").mkdir(parents=True)
    (run / "ckpt" / "000net_trm.pth").touch()
    lists = "train: {image_list: train, val_list: val}\ninfer: {image_list: val, eval_list: val}\n"
    (run / "config.yaml").write_text(f"data: {{root: {data}, classes: {data}/classes.txt}}\n{lists}")
    costs: dict[tuple[str, str], Cost] = {}
    for turn in range(turns + 1):
        for name, root in copies.items():
            environment = {**os.environ, "PYTHONPATH": str(root)}
            environment |= {"PYTHONDONTWRITEBYTECODE": "1" if no_bytecode else ""}
            environment |= {"PYTHONPYCACHEPREFIX": str(place / "empty")} if no_bytecode else {}
            for title, command in {"import torch": "", **COMMANDS}.items():
                words = command.format(data=data, new=place / f"{name}_{turn}").split()
                line = [str(root / words[0]), *words[1:]] if words else ["-c", "import torch"]
                meter = [sys.executable, "-c", METER, sys.executable, *line]
                said = subprocess.run(meter, cwd=place, env=environment, check=True, capture_output=True, text=True)
                seconds, memory = map(float, said.stdout.split())
                if turn:
                    costs[name, title] = costs.get((name, title), Cost()).least(Cost(seconds, memory))
    return costs


if __name__ == "__main__":
    run_script(main)
