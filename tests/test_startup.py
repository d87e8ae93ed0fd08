"""Start-up of every script: which large packages are in memory when it ends, seen in a process of its own."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from common.data.classes import IGNORE_LABEL
from common.data.dataset import class_names
from common.data.masks import read_mask
from common.data.seeds import write_seed
from common.run.config import config_path, load_config
from common.run.files import ROOT
from common.run.weights import save_torch
from methods.irn.config import IRNConfig
from methods.irn.model import IRN
from methods.psa.config import PSAConfig
from methods.psa.model import affinity_net
from methods.toco.config import ToCoConfig
from methods.toco.model import ToCo

# Imports what it is told, then for each line of its input forks a process, which runs a script with one command line
# after another, as `python SCRIPT ...` does with one, and notes for each its exit code, all that it wrote, and the
# large packages in memory after it.
SERVER = """
import contextlib, importlib, io, json, os, runpy, sys
large = "torch", "timm", "torchvision", "torch._dynamo", "tensorboard", "matplotlib", "scipy", "pandas", "sympy"
for name in sys.argv[1:]:
    importlib.import_module(name)

def work(script, lines, folder, file):
    os.chdir(folder)
    os.environ |= json.loads(environment)
    sys.path[0] = os.path.dirname(script)
    results = []
    for line in lines:
        sys.argv = [script, *line]
        said = io.StringIO()
        code = None
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as end:
                code = end.code
        results.append((code, said.getvalue(), [name for name in large if name in sys.modules]))
    with open(file, "w") as output:
        json.dump(results, output)

for text in sys.stdin:
    *job, environment = json.loads(text)
    child = os.fork()
    if child == 0:
        work(*job)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
IS_SCRIPT = 'if __name__ == "__main__":'
FOLDERS = "methods/*/*.py", "scripts/*.py", "*.py"
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for folder in FOLDERS for path in ROOT.glob(folder) if IS_SCRIPT in path.read_text()
)

# Command lines that are wrong, with words of the message. Of all scripts with a configuration:
OF_CONFIGURATION = {
    "--name used data.rot=y": "unknown configuration key", "--name used data.dataset=voc13": "it must be one of",
    "--name used data.root": "not of the form key=value",
}  # fmt: skip
# With an experiment and a run folder besides:
OF_RUN = {
    **OF_CONFIGURATION, "--name x/y": "a run's name", "--name used --exp nothing": "no configuration 'nothing'",
    "--nmae x": "--name", "--name used runtime.seed=one": "wrong value",
}  # fmt: skip
OF_TRAINING = {
    **{line.replace("used", "x"): words for line, words in OF_RUN.items()},
    "--name used": "is not empty", "--name x --resume": "no run folder",
    "--name used --resume": "nothing to resume", "--name used --resume --overwrite": "give one of them",
    "--name x --check data.root=lost": "missing:",
    "--name x train.batch_size=4 train.accumulation=3": "does not divide", "--name x train.batch_size=0": "at least 1",
}  # fmt: skip
LOST_WEIGHTS = {"--name used --load_pretrained lost.pth": "no weights file at lost.pth"}
OF_INFERENCE = {**OF_RUN, **LOST_WEIGHTS, "--name x": "no run folder", "--name used --check": "missing:"}
OF_SEEDS = {**OF_INFERENCE, "--name used --vis": "add --dict", "--name used infer.scales=[]": "it must be"}
OF_MASKS = {**OF_INFERENCE, "--name used data.dataset=coco14 --submission": "the data set is coco14"}
WITH_SEEDS = {**OF_RUN, "--name x": "which seeds", "--name x --seeds lost": "no folder of seeds"}
REFINING = {
    **OF_RUN, "--name x": "no run folder",
    "--name used": "which seeds", "--name used --seeds lost": "no folder of seeds",
    "--name used --seeds . --load_pretrained lost.pth": "no weights file at lost.pth",
}  # fmt: skip
LOST_START = {"--name x model.pretrained=lost.pth": "no weights file at lost.pth"}
OF_TRANSFORMER = {"--name x model.num_heads=5": "does not divide", "--name x model.img_size=30": "no multiple"}
OF_CLASSIFIER = {**OF_TRAINING, **LOST_START, **OF_TRANSFORMER}
ONE_IMAGE = {"--name x --count 0": "at least one"}
BENCHMARK = {"--size 1": "--size", "--device tpu": "--device"}
WRONG = {
    "evaluation.py": {
        **{f"{line} --dict_dir dict": words for line, words in OF_CONFIGURATION.items()}, "--dict_dir dict": "--name",
        "--name x": "give either",
        "--name x --trivial background --task png": "as --task cam",
        "--name x --dict_dir dict eval.thresholds=[1]": "first, last and step",
        "--name x --dict_dir lost": "no run folder", "--name used --dict_dir lost --check": "missing:",
    },
    "methods/crt/eval_wsol.py": {
        "--name used data.rot=y": "unknown configuration key", "--name x": "no run folder", **LOST_WEIGHTS,
        "--name used eval.image_list=val": "no split 'val'", "--name used views.resize=10": "leaves no room",
    },
    "methods/crt/make_cam.py": {**OF_SEEDS, "--name used views.crop_size=300": "cannot be cut into tiles"},
    "methods/crt/run_sample.py": {
        **OF_CONFIGURATION, "--exp crt_2022": "no PASCAL VOC 2012", "--name x --exp nothing": "no configuration",
        "--name x --nproc 0": "at least one process", "--name x --eval_cam_pass perhaps": "neither True nor False",
    },
    "methods/crt/train_cam.py": {
        **OF_TRAINING, "--name x model.deit.num_heads=5": "does not divide",
        "--name x model.cnn.pretrained=lost.pth": "no weights file", "--name x model.cnn.blocks=[1]": "4 numbers",
    },
    "methods/crt/train_wsol.py": {
        "--name x --exp nothing": "no configuration", "--name used": "is not empty",
        "--name x train.val_list=val": "no split 'val'", "--name x model.deit.pretrained=lost.pth": "no weights file",
    },
    "methods/cti/infer_trm.py": OF_SEEDS,
    "methods/cti/train_trm.py": {**OF_CLASSIFIER, "--name x loss.swap_idx=11": "do not fit a network of 12 blocks"},
    "methods/deeplab/test_deeplab.py": {
        **OF_MASKS, "--name used infer.crf.backend=pydensecrf infer.crf.device=cuda": "has no cuda version",
    },
    "methods/deeplab/train_deeplab.py": {
        **OF_TRAINING, "--name x --masks m --init lost.pth": "no initial weights",
        "--name x --init none": "--masks is missing",
    },
    "methods/dig/infer_trm.py": OF_SEEDS,
    "methods/dig/train_diffusion.py": {
        **OF_TRAINING, "--name x views.size=100": "multiples of 8", "--name x sampling.steps=0": "from 1 to 1000",
        "--name x --init lost.pt": "no diffusion model",
    },
    "methods/dig/train_trm.py": {
        **OF_CLASSIFIER, "--name x diffusion.file=lost.pt": "no diffusion model",
        "--name x model.embed_dim=36": "LFCA has 8 heads", "--name x model.depth=1": "last two blocks",
    },
    "methods/irn/benchmark.py": BENCHMARK,
    "methods/irn/infer_irn.py": REFINING,
    "methods/irn/make_ir_label.py": {
        **WITH_SEEDS, "--name x labels.crf.backend=pydensecrf labels.crf.device=cuda": "has no cuda version",
    },
    "methods/irn/train_irn.py": {**OF_TRAINING, **LOST_START, "--name x views.crop_size=8": "views.crop_size=8"},
    "methods/pcss/infer_pcss.py": OF_SEEDS,
    "methods/pcss/train_pcss.py": {**OF_CLASSIFIER, "--name x fim.block=100": "no multiple of fim.block=100"},
    "methods/psa/benchmark.py": BENCHMARK,
    "methods/psa/infer_aff.py": REFINING,
    "methods/psa/make_crf.py": {**WITH_SEEDS, "--name x --low_alpha 9 --high_alpha 9": "must be less than"},
    "methods/psa/train_aff.py": {
        **OF_TRAINING, "--name x": "no weights of ResNet-38", "--name x model.pretrained=lost.pth": "no weights file",
        "--name x --low_alpha 9 --high_alpha 9": "must be less than",
    },
    "methods/segments/vote.py": {
        **WITH_SEEDS, "--name x --seeds . --tune_on a --thresholds b": "give one of them",
        "--name x --seeds . vote.min_agreement=0.5": "needs the folder of the agreement",
    },
    "methods/toco/infer_cam.py": OF_SEEDS,
    "methods/vitseg/test_vitseg.py": OF_MASKS,
    "methods/vitseg/train_vitseg.py": {
        **OF_CLASSIFIER, "--name x": "--masks is missing", "--name x train.ignore=disputed": "do not go together",
        "--name x views.input=caffe": "it must be one of: imagenet",
    },
    "methods/toco/infer_seg.py": OF_MASKS,
    "methods/toco/train_toco.py": {
        **OF_CLASSIFIER, "--name x loss.group=3": "does not divide the micro-batch of 4",
        "--name x views.crop_size=96": "no room for 8 different local crops", "--name x --aux_layer=-1": "no block",
    },
    "scripts/benchmark.py": {
        "": "command", "train --method irn": "--method", "train --method toco --arch timm:x": "--method cti or vitseg",
    },
    "scripts/benchmark_beyond.py": {"--runs 1": "--runs at least 2", "--turns many": "--turns"},
    "scripts/benchmark_card.py": {"--turns many": "--turns", "--images 0": "start at 1"},
    "scripts/benchmark_crf.py": {"": "command", "crf --device tpu": "--device"},
    "scripts/benchmark_predict.py": {"--turns many": "--turns", "--method irn": "--method"},
    "scripts/benchmark_report.py": {"--images 0": "at least 1", "--root lost": "no PASCAL VOC 2012"},
    "scripts/benchmark_startup.py": {"--turns many": "--turns"},
    "scripts/check_data.py": {
        "data.rot=y": "unknown configuration key", "--show many": "wrong value", "data.root=lost": "no PASCAL VOC 2012",
    },
    "scripts/compare_runs.py": {"": "NAME", "x": "two runs are needed", "x x": "no run folder", "used used": "--card"},
    "scripts/crf_masks.py": {**WITH_SEEDS, "--name x --alpha 0": "above 0"},
    "scripts/export_masks.py": {
        "": "--masks, --format, --out", "--masks lost --format coco --out x": "no folder with masks",
        "--masks m --format png --out x": "'coco', 'labelme'",
    },
    "scripts/doctor.py": {"": "NAME", "x": "no run folder", "used --images 0": "at least one"},
    "scripts/fuse_seeds.py": {
        **OF_RUN, "--name x": "which runs", "--name x used lost": "no seeds of 'used'",
        "--name x used --how min --weights 1": "have no meaning",
    },
    "scripts/fuzz.py": {"--seconds 0": "above 0", "--seed x": "--seed"},
    "scripts/kill_runs.py": {"--kinds all": "--kinds", "--folder experiment": "not empty"},
    "scripts/list_runs.py": {"--lst val": "Did you mean --list?"},
    "scripts/make_cub_shapes.py": {"--train 0": "start at 1", "--size 8": "too small"},
    "scripts/make_segments.py": {**OF_RUN, "--name x --with sam9": "it must be one of"},
    "scripts/make_shapes.py": {"--train 0": "start at 1", "--size 8": "too small"},
    "scripts/noisy_masks.py": {
        "": "--masks, --out", "--masks lost --out x": "no folder with masks", "--masks m --out x --share 2": "--share",
    },
    "scripts/pipeline_table.py": {"": "--name", "--name x": "no run folder"},
    "scripts/plan.py": {
        "": "either --exp NAME or --table", "--exp irn_cti": "planned are those of",
        "--exp cti_cvpr24 --gpu 309": "Did you mean 3090", "--exp nothing": "no configuration",
    },
    "scripts/plot_run.py": {"": "NAME", "x/y": "a run's name", "x": "no run folder"},
    "scripts/predict.py": {
        "": "name one network", "--name x": "no run folder", "--name used": "a training writes it",
        "--load_pretrained x.pth": "needs --exp",
        "--load_pretrained lost.pth --exp cti_cvpr24 a.jpg": "no weights file",
        "--name used --exp irn_voc a.jpg": "no configuration", "--name used --exp irn_cti a.jpg": "networks of CTI",
        "--name used --exp cti_cvpr24 data.rot=y a.jpg": "unknown configuration key",
        "--name used --exp cti_cvpr24": "no image is named", "--name used --exp cti_cvpr24 a.jpg": "no checkpoint",
        "--name used --exp cti_cvpr24 --labels t.csv --classes cat a.jpg": "give one of them",
        "--name used --exp cti_cvpr24 --threshold=-1 a.jpg": "from 0 to below 1",
    },
    "scripts/prepare_data.py": {"": "required", "voc --root lost --no-download": "no folder lost"},
    "scripts/report.py": {
        "": "--name", "--name x": "no run folder", "--name x --dict_dir dict": "belong together",
        "--name x --images -1": "at least 0",
    },
    "scripts/reproduce.py": {
        "": "no recipe of", "ctj": "Did you mean cti_voc12", "cti --nproc 0": "at least one process",
        "cti --dataset coco14 --name x": "no MS COCO 2014",
    },
    "scripts/reproductions_page.py": {"more": "unknown argument"},
    "scripts/results_table.py": {"": "command", "show": "show takes runs", "show x": "no run folder"},
    "scripts/run_pipeline.py": {
        **OF_CONFIGURATION, "--name x --exp nothing": "no configuration", "--name x --nproc 0": "at least one process",
    },
    "scripts/seed_table.py": {"": "--name", "--name x/y": "a run's name"},
    "scripts/show_masks.py": {"": "--name", **ONE_IMAGE},
    "scripts/show_seeds.py": {"": "--name", **ONE_IMAGE},
    "scripts/show_segments.py": {"": "--name", **ONE_IMAGE, "--name lost": "no run folder"},
}  # fmt: skip


class Runner:
    """Runs scripts in forks of a process that has imported some modules, which spares the time for that."""

    def __init__(self, *modules: str) -> None:
        command = [sys.executable, "-c", SERVER, *modules]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(
        self, script: str, lines: Sequence[str], folder: Path, **environment: str
    ) -> list[tuple[int, str, set[str]]]:
        """Runs a script in a folder, with several command lines in one process.

        Returns:
            For each its exit code, all that it wrote, and the large packages in memory after it.
        """
        assert self.process.stdin and self.process.stdout
        with tempfile.NamedTemporaryFile("r") as file:
            job = str(ROOT / script), [shlex.split(line) for line in lines], str(folder), file.name
            self.process.stdin.write(json.dumps((*job, json.dumps(environment))) + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "0\n"
            return [(code, said, set(imported)) for code, said, imported in json.load(file)]

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    """Of scripts that must not import PyTorch."""
    runner = Runner("common.run.script")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def run_torch() -> Iterator[Runner]:
    """Of scripts that may import PyTorch, but none of the other large packages."""
    runner = Runner("common.run.script", "torch")
    yield runner
    runner.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run that has a file."""
    (tmp_path / "experiment" / "used").mkdir(parents=True)
    (tmp_path / "experiment" / "used" / "log.txt").touch()
    return tmp_path


def test_every_script_is_here() -> None:
    assert sorted(WRONG) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_errors_import_no_large_package(script: str, folder: Path, run: Runner) -> None:
    """An error of command line, configuration or run folder is told without a traceback, and leaves nothing behind."""
    wrong = WRONG[script]
    (code, said, imported), *errors = run(script, ["--help", *wrong], folder)
    assert code == 0 and said.startswith("usage:") and not imported
    for (line, words), (code, said, imported) in zip(wrong.items(), errors, strict=True):
        assert code in (1, 2) and words in said and said.count("error: ") == 1, (line, said)
        assert not imported, (line, said)
    assert [path.name for path in folder.rglob("*")] == ["experiment", "used", "log.txt"]


def test_processes_that_do_not_suit_the_batch(folder: Path, run: Runner) -> None:
    """torchrun's environment tells their number; they need not meet for it."""
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3"}
    ((code, said, imported),) = run("methods/cti/train_trm.py", ["--name x train.batch_size=64"], folder, **launched)
    assert code == 1 and "does not divide by 3 process(es)" in said
    assert not imported


def assert_imports(run: Runner, script: str, line: str, folder: Path, allowed: set[str]) -> None:
    """A whole run ends well, and has no other large packages in memory."""
    ((code, said, imported),) = run(script, [line], folder)
    assert code == 0, said
    assert imported <= allowed, script


def test_data_and_evaluation_need_no_torch(shapes: Path, tmp_path: Path, run: Runner) -> None:
    """Whole runs of the scripts that make and check data sets, score predictions, and draw."""
    own = f"data.root={shapes} data.classes={shapes}/classes.txt"
    (tmp_path / "own.yaml").write_text(f"data: {{root: {shapes}, classes: {shapes}/classes.txt}}")
    masks = f"--name x --task png --dict_dir {shapes}/SegmentationClass --data own.yaml --list val"
    (tmp_path / "experiment" / "x").mkdir(parents=True)
    for script, line, allowed in (
        ("scripts/make_shapes.py", "--root made --train 2 --val 1 --size 32 --workers 1", set()),
        ("scripts/make_cub_shapes.py", "--root cub --train 2 --test 1 --size 32 --workers 1", set()),
        ("scripts/check_data.py", f"{own} --workers 1", set()),
        ("scripts/check_data.py", "--data cub data.root=cub --workers 1", set()),
        ("evaluation.py", "--name x --trivial background --data own.yaml --list val", {"matplotlib"}),
        ("evaluation.py", "--name x --trivial first_label --data own.yaml --list val", {"matplotlib"}),
        ("evaluation.py", masks, set()),
        ("scripts/seed_table.py", "--name x --masks", set()),
    ):
        assert_imports(run, script, line, tmp_path, allowed)


def test_inference_of_seeds(experiment: Path, checkpoint: Path, tmp_path: Path, run: Runner, run_torch: Runner) -> None:
    """Seeds, their pictures and CRF, and their score; then pictures of seeds by a script that needs no torch."""
    line = f"--name x --exp {experiment} --load_pretrained {checkpoint} --dict --vis --crf infer.crf_alphas=[6]"
    assert_imports(run_torch, "methods/cti/infer_trm.py", line, tmp_path, {"torch", "matplotlib"})
    assert_imports(run, "scripts/show_seeds.py", "--name x --count 1", tmp_path, set())


def test_inference_of_masks(shapes: Path, toco_experiment: Path, tmp_path: Path, run_torch: Runner) -> None:
    """Masks of a network with random weights."""
    config = load_config(ToCoConfig, toco_experiment)
    save_torch(tmp_path / "toco.pth", ToCo(config.model, len(class_names(config.data))).state_dict())
    line = f"--name x --exp {toco_experiment} --load_pretrained toco.pth --crf"
    assert_imports(run_torch, "methods/toco/infer_seg.py", line, tmp_path, {"torch"})


def test_refinement_of_seeds(shapes: Path, tmp_path: Path, run_torch: Runner) -> None:
    """Masks by IRN and PSA under random weights and by the CRF alone, and the files that both learn from."""
    (tmp_path / "own.txt").write_text("2027_000001\n2027_000002\n")
    for image_id in ("2027_000001", "2027_000002"):
        mask = read_mask(shapes / "SegmentationClass" / f"{image_id}.png")
        classes = sorted({*np.unique(mask)} - {0, IGNORE_LABEL})
        write_seed(tmp_path / "seeds", image_id, {int(k) - 1: (mask == k).astype(np.float32) for k in classes})
    data = f"data.root={shapes} data.classes={shapes}/classes.txt --seeds seeds runtime.num_workers=0"
    of_set = f"data.root={shapes} data.classes={shapes}/classes.txt runtime.num_workers=0"
    own = f"{of_set} --exp segments_demo"
    lists = "infer.image_list=own.txt infer.eval_list="  # the curve of a score needs matplotlib
    irn = f"--name irn {data} --exp irn_demo"
    psa = f"--name psa {data} --exp psa_demo"
    save_torch(tmp_path / "irn.pth", IRN(load_config(IRNConfig, config_path("irn_demo")).model).state_dict())
    save_torch(tmp_path / "psa.pth", affinity_net(load_config(PSAConfig, config_path("psa_demo")).model).state_dict())
    masks = "infer.image_list=own.txt infer.eval_list=own.txt runtime.device=cpu"
    for script, arguments in (
        ("methods/irn/make_ir_label.py", f"{irn} train.image_list=own.txt"),
        ("methods/irn/infer_irn.py", f"{irn} {masks} --load_pretrained irn.pth"),
        ("methods/psa/make_crf.py", f"{psa} train.image_list=own.txt"),
        ("methods/psa/infer_aff.py", f"{psa} {masks} infer.num_workers=0 --load_pretrained psa.pth"),
        ("scripts/make_segments.py", f"--name segments {own} infer.image_list=own.txt"),
        ("methods/segments/vote.py", f"--name segments {own} --seeds seeds {lists}"),
        ("scripts/fuse_seeds.py", f"--name fused seeds seeds --exp fusion_demo {of_set} {lists}"),
        ("scripts/crf_masks.py", f"--name crf {data} infer.image_list=own.txt infer.eval_list=own.txt"),
    ):
        assert_imports(run_torch, script, arguments, tmp_path, {"torch"})
