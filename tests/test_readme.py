"""Every command in the README works: run here as it stands, on tiny data, or exercised by the test named here."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from common.data.classes import VOC12
from common.data.labels import write_labels
from common.data.masks import write_mask
from common.pipeline.stages import StageRunner
from common.run.files import ROOT
from methods.dig.config import UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import save_diffusion
from methods.dig.unet import UNet
from tests.datasets import make_cub, make_voc, write_image, write_lines, write_xml
from tests.forks import run_together

# A configuration that trains the literal 60 epochs of the README in seconds.
TINY = """
data: {{dataset: {dataset}, root: {root}}}
model: {{pretrained: none, img_size: 16, patch_size: 8, embed_dim: 8, depth: 3, num_heads: 2}}
{method}
views: {{auto_augment: ""}}
train: {{image_list: {train}, val_list: {train}, epochs: {epochs}, validate_from: {last}, batch_size: 4}}
infer: {{image_list: {train}, eval_list: {train}, num_workers: 0, crf_alphas: [6]}}
runtime: {{num_workers: 0}}
"""
CTI = "loss: {swap_idx: 0, n_layers: 2, memory_size: 2}"
PCSS = "loss: {mpc_idx: 0}\nfim: {images_per_class: 1, block: 8, interval: 30}"
DIG = """
loss: {cam_start_epoch: 0}
diffusion: {file: pretrained/model-140-pascal.pt}
unet: {dim: 8, dim_mults: [1, 2]}
"""
DIFFUSION = """
data: {dataset: voc12, root: data/VOC2012}
views: {size: 16}
unet: {dim: 8, dim_mults: [1, 2]}
train: {image_list: train, max_steps: 1, batch_size: 4}
sampling: {images: 1, steps: 1}
runtime: {num_workers: 0}
"""
TOCO = """
data: {dataset: voc12, root: data/VOC2012}
views: {crop_size: 32, local_size: 16, local_crops: 2}
model:
  {pretrained: none, img_size: 16, patch_size: 8, embed_dim: 8, depth: 3, num_heads: 2, aux_layer: -2, decoder_dim: 8,
   proj_dim: 8}
train: {image_list: train, val_list: train, max_steps: 2, batch_size: 4, val_size: 16, print_freq: 1}
infer:
  {image_list: train, eval_list: train, num_workers: 0, cam_size: 16,
   segment: {image_list: train, num_workers: 0, scales: [1.0]}}
runtime: {num_workers: 0}
"""
STAGES = {
    "crt_2022": """
data: {dataset: voc12, root: data/VOC2012}
views: {long_side: [24, 40], crop_size: 32}
model:
  cnn: {arch: resnet18, blocks: [1, 1, 1, 1], pretrained: none}
  deit: {pretrained: none, img_size: 32, embed_dim: 8, depth: 2, num_heads: 2}
  passes: 2
train: {image_list: train, epochs: 2, batch_size: 4}
infer: {image_list: train, eval_list: train, scales: [1.0, 0.5], num_workers: 0}
irn: {exp: irn_cti}
runtime: {num_workers: 0}
""",
    "pipeline_crt": """
data: {dataset: voc12, root: data/VOC2012}
flow: {first: masks}
lists: {train: train, score: train, val: val}
irn: {exp: irn_cti}
""",
    "crt_cub": """
data: {root: data/CUB_200_2011}
views: {resize: 40}
model:
  cnn: {arch: resnet18, blocks: [1, 1, 1, 1], pretrained: none}
  deit: {pretrained: none, img_size: 32, embed_dim: 8, depth: 2, num_heads: 2}
train: {epochs: 1, batch_size: 2}
runtime: {num_workers: 0}
""",
    "pipeline_irn": """
data: {dataset: voc12, root: data/VOC2012}
lists: {train: train, score: train, val: val}
""",
    "irn_cti": """
data: {dataset: voc12, root: data/VOC2012}
views: {crop_size: 32, scale: [0.8, 1.2]}
model: {arch: resnet18, blocks: [1, 1, 1, 1], pretrained: none}
loss: {radius: 3}
train: {image_list: train, displacement_list: train, epochs: 1, batch_size: 2}
walk: {radius: 2, log2_rounds: 2}
infer: {image_list: train, eval_list: train, canvas: 64}
runtime: {num_workers: 0}
""",
    "segments_voc": """
data: {dataset: voc12, root: data/VOC2012}
infer: {image_list: train, eval_list: train}
runtime: {num_workers: 0}
""",
    "fusion_voc": """
data: {dataset: voc12, root: data/VOC2012}
infer: {image_list: train, eval_list: train}
runtime: {num_workers: 0}
""",
    "crf_voc": """
data: {dataset: voc12, root: data/VOC2012}
infer: {image_list: train, eval_list: train}
runtime: {num_workers: 0}
""",
    "pipeline_best": """
data: {dataset: voc12, root: data/VOC2012}
flow: {vote: true, refine: crf}
lists: {train: train, score: train, val: val}
""",
    "psa_voc": """
data: {dataset: voc12, root: data/VOC2012}
views: {crop: 40}
model: {arch: tiny}
train: {image_list: train, epochs: 1, batch_size: 2}
walk: {log2_rounds: 2}
infer: {image_list: train, eval_list: train, num_workers: 0}
runtime: {num_workers: 0}
""",
    "deeplab_voc": """
data: {dataset: voc12, root: data/VOC2012}
views: {input: imagenet, crop_size: 33}
model: {pretrained: none, width: 4, blocks: [1, 1, 1, 1], atrous_rates: [1, 2]}
train: {image_list: train, max_steps: 2, batch_size: 2, accumulation: 1, eval_steps: 0}
infer: {image_list: val, num_workers: 0}
runtime: {num_workers: 0}
""",
}
COCO_IDS = [f"{number:012d}" for number in (9, 25, 30, 34, 42)]

# Commands that need the network, or are a test run themselves: what exercises them, and a text that it must contain.
ELSEWHERE = {
    "bash scripts/demo.sh": ("tests/test_demo.py", "demo.sh"),
    "bash scripts/demo.sh pcss": ("tests/test_demo.py", '"pcss"'),
    "bash scripts/demo_dig.sh": ("tests/test_demo.py", "demo_dig.sh"),
    "bash scripts/demo_toco.sh": ("tests/test_demo.py", "demo_toco.sh"),
    "bash scripts/demo_pipeline.sh": ("tests/test_demo.py", "demo_pipeline.sh"),
    "bash scripts/demo_best.sh": ("tests/test_demo.py", "demo_best.sh"),
    "bash scripts/demo_crt.sh": ("tests/test_demo.py", "demo_crt.sh"),
    "bash scripts/demo_wsol.sh": ("tests/test_demo.py", "demo_wsol.sh"),
    "bash scripts/test.sh": (".ci/run", "scripts/test.sh"),
    "python scripts/prepare_data.py voc": ("tests/test_prepare_data.py", '"voc"'),
    "python scripts/prepare_data.py cub": ("tests/test_prepare_data.py", '"cub"'),
    "python scripts/prepare_data.py coco": ("tests/test_prepare_data.py", '"coco"'),
    "python methods/cti/train_trm.py --name dinov3 --exp backbone_dinov3": ("tests/test_backbones.py", "dinov3"),
    "python methods/vitseg/train_vitseg.py --name vitseg --masks experiment/psa/masks": (
        "tests/test_train_vitseg.py",
        "vitseg",
    ),
    "python methods/vitseg/test_vitseg.py --name vitseg --crf": ("tests/test_train_vitseg.py", "vitseg"),
    "python scripts/reproduce.py cti --dry-run": ("tests/test_reproduce.py", '"--dry-run"'),
    "python scripts/reproduce.py cti --dataset demo": ("tests/test_reproduce.py", '"--dataset"'),
    "python scripts/reproduce.py crt data.root=/data/VOC2012": ("tests/test_reproduce.py", "test_a_recipe"),
}
VOC = {"dataset": "voc12", "root": "data/VOC2012", "train": "train"}
COCO = {"dataset": "coco14", "root": "data/COCO2014", "train": "train14_small"}


def commands(markdown: str) -> list[str]:
    """The commands of all bash blocks, comments cut off."""
    blocks = re.findall(r"^```bash\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


README = commands((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the scripts, tiny data in the places that the README names, and tiny configurations."""
    folder, before = tmp_path_factory.mktemp("readme"), Path.cwd()
    for name in ("methods", "scripts", "evaluation.py"):
        (folder / name).symlink_to(ROOT / name)
    # A file of that name here comes before the one in configs/.
    (folder / "cti_cvpr24").write_text(TINY.format(**VOC, method=CTI, epochs=60, last=59))
    (folder / "cti_coco_cvpr24").write_text(TINY.format(**COCO, method=CTI, epochs=2, last=1))
    (folder / "pcss_eccv24").write_text(TINY.format(**VOC, method=PCSS, epochs=60, last=59))
    (folder / "dig_eccv24").write_text(TINY.format(**VOC, method=DIG, epochs=2, last=1))
    (folder / "diffusion_dig_voc").write_text(DIFFUSION)
    (folder / "toco_cvpr23").write_text(TOCO)
    for name, text in STAGES.items():
        (folder / name).write_text(text)
    (folder / "docs").symlink_to(ROOT / "docs")
    save_diffusion(folder / "pretrained" / "model-140-pascal.pt", GaussianDiffusion(UNet(UNetConfig(8, [1, 2]))), 7)
    make_voc(folder / "data" / "VOC2012")
    show_all_classes(folder / "data" / "VOC2012")
    lists = folder / "data" / "VOC2012" / "ImageSets" / "Segmentation"
    shutil.copy(lists / "train.txt", lists / "test.txt")
    make_coco(folder / "data" / "COCO2014")
    make_cub(folder / "data" / "CUB_200_2011")
    (folder / "data" / "CUB_200_2011" / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n4 0\n5 1\n")
    make_own(folder / "my_set")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def show_all_classes(root: Path) -> None:
    """Gives six images all classes of VOC, in labels and masks: a training refuses a class without images."""
    for index in range(6):
        names = list(VOC12[index::6])
        write_xml(root / "Annotations" / f"2007_{index + 1:06d}.xml", names)
        mask = np.zeros((24, 32), np.uint8)
        for place, name in enumerate(names):
            mask[4:20, 4 + 6 * place : 9 + 6 * place] = VOC12.index(name) + 1
        write_mask(root / "SegmentationClass" / f"2007_{index + 1:06d}.png", mask)


def make_coco(root: Path) -> None:
    """COCO's layout with all classes in four training images, and one image for validation."""
    for split, ids in (("train", COCO_IDS[:-1]), ("val", COCO_IDS[-1:])):
        for index, image_id in enumerate(ids):
            write_image(root / f"{split}2014" / f"COCO_{split}2014_{image_id}.jpg", seed=index)
            mask = np.zeros((24, 32), np.uint8)
            mask[4:20, 4:24] = np.arange(20 * index, 20 * index + 20) + 1
            write_mask(root / "SegmentationClass" / f"{split}2014" / f"COCO_{split}2014_{image_id}.png", mask)
        labels = np.repeat(np.eye(4, dtype=np.float32), 20, axis=1)
        write_labels(root / f"labels_{split}2014.npz", dict(zip(ids, labels, strict=False)))
        write_lines(root / "ImageSets" / "Segmentation" / f"{split}.txt", ids)
    write_lines(root / "train14_small.txt", COCO_IDS[:-1])


def make_own(root: Path) -> None:
    for index in range(4):
        write_image(root / "images" / f"img_{index}.jpg", seed=index)
        mask = np.zeros((24, 32), np.uint8)
        mask[4:20, 4:20] = 1 + index % 2
        write_mask(root / "masks" / f"img_{index}.png", mask)
    write_image(root.parent / "photos" / "new.jpg", (30, 20), seed=9)
    write_lines(root / "labels.csv", ["id,label", *(f"img_{index},{('cat', 'dog')[index % 2]}" for index in range(4))])


def run_here(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a script's ``main`` in this process, which spares its imports; its exit code."""
    name = script.removesuffix(".py").replace("/", ".")  # methods have scripts of one name
    if name not in sys.modules:  # where worker processes look for it
        spec = importlib.util.spec_from_file_location(name, ROOT / script)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return sys.modules[name].main() or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_stages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pipelines run their scripts in this process, too."""

    def run(runner: StageRunner, command: Sequence[str]) -> int:
        assert command[0] == sys.executable
        with pytest.MonkeyPatch.context() as patch:
            return run_here(str(Path(command[1]).relative_to(ROOT)), list(command[2:]), patch)

    monkeypatch.setattr(StageRunner, "run", run)


def run_torchrun(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a script's ``main`` in forks of this process, which spares the start of torchrun."""
    option, number, script, *words = arguments
    assert option == "--nproc_per_node"
    run_together(lambda: sys.exit(run_here(script, words, monkeypatch)), int(number))


def test_the_readme_has_the_main_job() -> None:
    main_job = [
        "python methods/cti/train_trm.py --name exp --exp cti_cvpr24",
        "python methods/cti/infer_trm.py --name exp --load_epo 59 --dict",
        "python evaluation.py --name exp --task cam --dict_dir dict",
    ]
    assert [command for command in README if command in main_job] == main_job
    assert set(ELSEWHERE) <= set(README)


@pytest.mark.parametrize("command", README, ids=range(len(README)))
def test_command(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the README's order: later commands use what earlier ones wrote."""
    if command in ELSEWHERE:
        path, text = ELSEWHERE[command]
        assert text in (ROOT / path).read_text(encoding="utf-8")
        assert (ROOT / shlex.split(command)[1]).is_file()
        return
    program, *words = shlex.split(command)
    if "69.5_pascal.pth" in words:
        shutil.copy("experiment/exp/ckpt/059net_trm.pth", "69.5_pascal.pth")
    if "diffusion.file=experiment/ddpm/ckpt/model-140.pt" in words:
        shutil.copy("experiment/ddpm/ckpt/model-1.pt", "experiment/ddpm/ckpt/model-140.pt")
    if program == "torchrun":
        Path("cti_cvpr24").write_text(TINY.format(**VOC, method=CTI, epochs=2, last=1))
        run_torchrun(words, monkeypatch)
        return
    assert program == "python"
    run_stages_here(monkeypatch)
    assert run_here(words[0], words[1:], monkeypatch) == 0


def test_what_the_commands_left(workplace: Path) -> None:
    runs = workplace / "experiment"
    assert (runs / "exp" / "ckpt" / "best.pth").is_file() and (runs / "exp" / "eval_cam.json").is_file()
    assert len(list((runs / "exp" / "crf" / "06").glob("*.npy"))) == 6
    assert len(list((runs / "exp" / "vis").glob("*.png"))) == 6
    assert (runs / "two" / "ckpt" / "001net_trm.pth").is_file()
    for name, count in (("exp", 6), ("released", 6), ("pcss", 6), ("dig", 6), ("coco", 4), ("mine", 4)):
        assert len(list((runs / name / "dict").glob("*.npy"))) == count, name
    assert (runs / "coco" / "eval_cam.json").is_file()
    for name in ("predictions/mine", "given", "predictions/toco"):
        assert (workplace / name / "masks" / "new.png").is_file() and (workplace / name / "predictions.csv").is_file()
    for name, source in (("dig", "pretrained/model-140-pascal.pt (step 7"), ("own", "model-140.pt (step 1")):
        assert source in (runs / name / "log.txt").read_text()
    for run in ("exp_irn", "crt_irn", "psa"):
        assert len(list((runs / run / "masks").glob("*.png"))) == 6 and (runs / run / "eval_png.json").is_file()
    for run in ("exp_irn_deeplab", "crt_irn_deeplab", "deeplab"):
        assert len(list((runs / run / "segs_crf" / "val").glob("*.png"))) == 1
    table = json.loads((runs / "exp" / "pipeline_irn.json").read_text())["table"]
    assert [row["stage"] for row in table][-3:] == ["masks (irn)", "DeepLab", "DeepLab after the CRF"]
    sample = json.loads((runs / "crt" / "run_sample.json").read_text())["table"]
    assert [row["stage"] for row in sample] == ["seeds, best threshold", "seeds, fixed threshold", "masks (irn)"]
    assert {"best", "last"} <= json.loads((runs / "wsol" / "eval_wsol.json").read_text())["weights"].keys()
    assert len(list((runs / "wsol").glob("wsol_*.png"))) >= 2
    assert "diffusion model: none" in (runs / "plain" / "log.txt").read_text()


def test_commands_and_links_of_the_other_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for script in re.findall(r"^\s*(?:python|bash|torchrun [-\w ]*?\d) ([\w/]+\.(?:py|sh))\b", text, re.MULTILINE):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
