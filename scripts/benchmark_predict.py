"""Measures predictions of images against the methods' own inference scripts; prints rows of a Markdown table.

    python scripts/benchmark_predict.py                             # CTI, DeiT-S, images of about 375 x 500
    python scripts/benchmark_predict.py --method ToCo --images 4 --turns 2
    python scripts/benchmark_predict.py --exp cti_demo --size 96 --images 200

Both scripts get the same images, random weights and labels, each call in a process of its own, alternating, into a new
folder; scripts/predict.py writes masks, overlays and a table, the inference scripts seeds or masks. Counted are CPU
seconds (user and system), the least of all turns: of one image, which is nearly all start-up, and of N further ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
# Runs a command and prints the CPU seconds that the kernel counted for it and its children.
METER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""


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
        (own_start, own), (start, predict) = measured(args, Path(place))
    title = args.exp or PREDICTING[args.method].exp
    print("| | inference script | scripts/predict.py | ratio |\n|---|---|---|---|")
    print(f"| {title}: images per CPU second | {own:.2f} | {predict:.2f} | {predict / own:.2f} |")
    print(f"| {title}: one image, CPU seconds | {own_start:.2f} | {start:.2f} | {start / own_start:.2f} |")


def measured(args: argparse.Namespace, place: Path) -> list[tuple[float, float]]:
    """CPU seconds of one image, and images per CPU second: of the inference script, of scripts/predict.py."""
    data = make_data(place, args.images + 1, args.size)
    weights, exp = make_run(args.method, args.exp or PREDICTING[args.method].exp, place, data)
    ids = read_list(data / "ImageSets" / "Segmentation" / "val.txt", "voc12")
    (place / "one.txt").write_text(f"{ids[0]}\n")
    files = [str(data / "JPEGImages" / f"{image_id}.jpg") for image_id in ids]
    module, flags = OWN[args.method]
    section = PREDICTING[args.method].section
    least: dict[tuple[str, int], float] = {}
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
                least[side, count] = min(least.get((side, count), float("inf")), seconds_of(line, place))
    rate = {side: args.images / max(least[side, len(ids)] - least[side, 1], 1e-9) for side in ("own", "predict")}
    return [(least[side, 1], rate[side]) for side in ("own", "predict")]


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


def seconds_of(line: list[str], place: Path) -> float:
    """CPU seconds of a command of Python in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    meter = [sys.executable, "-c", METER, sys.executable, *line]
    return float(subprocess.run(meter, cwd=place, env=environment, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    run_script(main)
