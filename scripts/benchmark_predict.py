"""Measures predictions of images against the methods' own inference scripts; prints rows of a Markdown table.

    python scripts/benchmark_predict.py                             # CTI, DeiT-S, images of about 375 x 500
    python scripts/benchmark_predict.py --method ToCo --images 4 --turns 2
    python scripts/benchmark_predict.py --exp cti_demo --size 96 --images 200

Both scripts get the same images, random weights and labels, each call in a process of its own, alternating, into a new
folder; scripts/predict.py writes masks, overlays and a table, the inference scripts seeds or masks. Counted are CPU
seconds (user and system) and seconds of the clock, the least of all turns: of one image, which is nearly all start-up,
and of N further ones. Files are written by a second thread, so the clock needs a second core that is free.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.lists import read_list
from common.pipeline.builders import PREDICTING, named
from common.run.command import number
from common.run.config import at_least, config_path, load_config, save_config
from common.run.errors import run_script
from common.run.files import ROOT
from common.run.folder import RunFolder

SEEDS = ("--dict", "infer.eval_list=")
OWN = {  # scripts of inference, and their arguments
    "CTI": ("methods.cti.infer_trm", SEEDS), "PCSS": ("methods.pcss.infer_pcss", SEEDS),
    "DiG": ("methods.dig.infer_trm", SEEDS), "CRT": ("methods.crt.make_cam", SEEDS),
    "ToCo": ("methods.toco.infer_seg", ()), "DeepLab": ("methods.deeplab.test_deeplab", ()),
}  # fmt: skip
# Runs a command; prints the CPU seconds that the kernel counted for it and its children, and the seconds of the clock.
METER = """
import resource, subprocess, sys, time
start = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, time.monotonic() - start)
"""


class Speed(NamedTuple):
    """A script's start and speed: seconds of one image, and images per second; of the CPU, and of the clock."""

    start: float
    rate: float
    clock_rate: float


def main() -> None:
    """Command line → both scripts, alternating → rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--method", choices=OWN, default="CTI", help="whose network (default: %(default)s)")
    add("--exp", default="", help="its experiment (default: the published one)")
    add("--images", type=number(int, at_least(1)), default=8, help="N, number of images (default: %(default)s)")
    add("--size", type=number(int, at_least(48)), default=430, help="their mean side (default: %(default)s)")
    add("--turns", type=number(int, at_least(1)), default=3, help="timed turns (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        own, predict = measured(args, Path(place))
    title = args.exp or PREDICTING[args.method].exp
    rows = {
        "images per CPU second": (own.rate, predict.rate), "images per second": (own.clock_rate, predict.clock_rate),
        "one image, CPU seconds": (own.start, predict.start),
    }  # fmt: skip
    print("| | inference script | scripts/predict.py | ratio |\n|---|---|---|---|")
    for name, (first, second) in rows.items():
        print(f"| {title}: {name} | {first:.2f} | {second:.2f} | {second / first:.2f} |")


def measured(args: argparse.Namespace, place: Path) -> list[Speed]:
    """The speed of the inference script, and of scripts/predict.py."""
    data = make_data(place, args.images + 1, args.size)
    weights, exp = make_run(args.method, args.exp or PREDICTING[args.method].exp, place, data)
    ids = read_list(data / "ImageSets" / "Segmentation" / "val.txt", "voc12")
    (place / "one.txt").write_text(f"{ids[0]}\n")
    files = [str(data / "JPEGImages" / f"{image_id}.jpg") for image_id in ids]
    module, flags = OWN[args.method]
    section = PREDICTING[args.method].section
    least: dict[tuple[str, int], np.ndarray] = {}  # seconds of the CPU, and of the clock
    for turn in range(args.turns):
        for count, list_name in ((1, str(place / "one.txt")), (len(ids), "val")):
            out = f"{turn}_{count}"
            lines = {
                "own": ["-m", module, "--name", f"own_{out}", "--exp", exp, "--load_pretrained", weights, *flags,
                        f"{section}.image_list={list_name}"],
                "predict": [str(ROOT / "scripts/predict.py"), "--name", "run", "--out", f"predicted_{out}", "--labels",
                            str(place / "labels.csv"), *files[:count]],
            }  # fmt: skip
            for side, line in lines.items():
                seconds = seconds_of(line, place)
                least[side, count] = np.minimum(least.get((side, count), seconds), seconds)
    sides = ("own", "predict")
    rates = {side: args.images / np.maximum(least[side, len(ids)] - least[side, 1], 1e-9) for side in sides}
    return [Speed(float(least[side, 1][0]), *rates[side].tolist()) for side in sides]


def make_data(place: Path, images: int, size: int) -> Path:
    """A generated data set whose list val has a number of images, and their labels as a table."""
    from common.data.dataset import LabelledImages
    from common.data.layout import DataConfig

    data = place / "shapes"
    made = [sys.executable, str(ROOT / "scripts/make_shapes.py"), "--root", str(data), "--train", "1"]
    subprocess.run([*made, "--val", str(images), "--size", str(size)], check=True, capture_output=True)
    config = DataConfig(root=str(data), classes=str(data / "classes.txt"), labels=str(data / "Annotations"))
    labelled = LabelledImages(config, "val")
    rows = [
        f"{image_id},{';'.join(name for name, there in zip(labelled.classes, row, strict=True) if there)}"
        for image_id, row in zip(labelled.ids, labelled.labels, strict=True)
    ]
    (place / "labels.csv").write_text("\n".join(["id,label", *rows]))
    return data


def make_run(method: str, exp: str, place: Path, data: Path) -> tuple[str, str]:
    """A run of random weights for the generated data set; its file of weights and its configuration."""
    import torch

    from common.data.dataset import class_names
    from common.run.weights import save_torch

    kind = PREDICTING[method]
    keys = {"root": data, "classes": data / "classes.txt", "labels": data / "Annotations"}
    texts = [f"data.{key}={value}" for key, value in keys.items()]
    texts += [f"{kind.section}.image_list=val", f"{kind.section}.num_workers=0", "runtime.device=cpu"]
    config = load_config(named(kind.config), config_path(exp), texts)
    torch.manual_seed(0)
    model = named(kind.face).build(config, len(class_names(config.data)))
    run = RunFolder("run")
    weights = place / run.checkpoints / named(kind.file).format(1)
    save_config(config, place / run.config, Path(exp).stem)
    save_torch(weights, model.state_dict())
    return str(weights), str(place / run.config)


def seconds_of(line: list[str], place: Path) -> np.ndarray:
    """Seconds of a command of Python in a folder: of the CPU, and of the clock."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    meter = [sys.executable, "-c", METER, sys.executable, *line]
    said = subprocess.run(meter, cwd=place, env=environment, check=True, capture_output=True, text=True).stdout
    return np.array(said.split(), dtype=float)


if __name__ == "__main__":
    run_script(main)
