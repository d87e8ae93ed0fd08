"""Replays a recorded training run through the method's own script and trainer.

A record holds the batches of a run and what a reference implementation computed from them: losses, learning rates,
norms of gradients and of the final weights. The views of the images are deterministic, the first weights are made by
the recipe of the golden files. In records of float64 (``*_f64*``) all numbers are float64: two programs that compute
the same agree to the last digits. Nothing else of the script is replaced.
"""

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.models import get_model

from common.crf.lattice import Lattice
from common.data import transforms
from common.data.loader import EpochBatches
from common.data.transforms import IMAGENET_MEAN, IMAGENET_STD, MEAN, STD
from common.train import trainer as engine
from common.train.step import Batch
from common.train.trainer import Trainer
from methods.crt import train_cam
from methods.cti import train_trm as train_cti
from methods.dig import diffusion as dig_diffusion
from methods.dig import train_trm as train_dig
from methods.dig.config import TIMESTEPS, UNetConfig
from methods.dig.diffusion import GaussianDiffusion
from methods.dig.diffusion_files import save_diffusion
from methods.dig.unet import UNet
from methods.pcss import train_pcss
from methods.pcss.fim import FIM, wanted_labels
from methods.pcss.losses import PCSSStep
from methods.toco import labels as toco_labels
from methods.toco import step as toco_step
from methods.toco import train_toco
from methods.toco.crops import LocalCrops, cut
from tests.golden.weights import tensor_for

SCRIPTS: dict[str, ModuleType] = {  # by a loss term that the method alone has
    "intra": train_cti, "cls_mixed": train_pcss, "pred_diff": train_dig, "ptc": train_toco, "cls_cnn": train_cam,
}  # fmt: skip
MEMORY = 29  # CTI's tokens of a class of the images before the first step
FULL_MEMORY = 30  # of another class
PATCH = 16  # pixels
STEP_SEED = 1000  # step n begins with this seed + n, where the network draws (stochastic depth)
IMAGENET_SEED = 100  # of the recipe of an ImageNet-like file


@dataclass
class Record:
    """A recorded run."""

    path: Path

    @cached_property
    def stored(self) -> dict[str, np.ndarray]:
        """The arrays of the file."""
        with np.load(self.path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What was run: ``argv`` of the project's script, and the names of the columns of losses."""
        return json.loads(str(self.stored["meta"]))

    @property
    def script(self) -> ModuleType:
        """The method's training script."""
        (script,) = (script for term, script in SCRIPTS.items() if term in self.meta["project_terms"])
        return script

    @property
    def is_double(self) -> bool:
        """Whether it was computed in float64."""
        return "_f64" in self.path.stem

    @property
    def is_filled(self) -> bool:
        """Whether every tensor of the network is made by the recipe; else fresh ones are drawn."""
        return self.path.stem.endswith("_f64")

    @property
    def ids(self) -> list[str]:
        """Image ids."""
        return [str(image_id) for image_id in self.stored["ids"]]

    def reference(self, term: str) -> np.ndarray:
        """The reference's values of a term, by step."""
        return self.stored["reference_losses"][:, self.meta["reference_terms"].index(term)]


@dataclass
class Replay:
    """The numbers of a replayed run.

    Attributes:
        losses: by term, a value a step, as they are weighted in the total of CTI, PCSS and DiG, plain in the others.
        lr: by step, of each group of parameters.
        weight_decay: by step, of each group.
        grad_norms: of the first and the last step, by parameter.
        norms: L2 norms of the final weights and buffers.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    lr: list[list[float]] = field(default_factory=list)
    weight_decay: list[list[float]] = field(default_factory=list)
    grad_norms: list[dict[str, float]] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)

    def column(self, term: str) -> np.ndarray:
        """The values of a reference's term; ``cls4`` is the sum of CTI's four classification losses."""
        terms = ("cls", "pcls", "cls_view2", "pcls_view2") if term == "cls4" else (term,)
        return np.array([sum(step[name] for name in terms) for step in self.losses])


def replay(record: Record, data: Path, folder: Path) -> Replay:
    """Runs the record's script in a folder; the images are found by their ids anywhere below ``data``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = prepare(record, data, folder)
        found = Replay()
        replace_draws(patch, record, found)
        if record.is_double:
            single = torch.Tensor.float
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            patch.setattr(nn.Module, "float", nn.Module.double)
            for name, values in (("MEAN", IMAGENET_MEAN), ("STD", IMAGENET_STD)):  # made in float32
                precise = torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
                patch.setattr(transforms, name, precise)
                patch.setattr(dig_diffusion, name, precise)
                patch.setattr(toco_labels, f"{name}_255", 255 * precise)
            for name in ("__init__", "filter"):  # the reference's lattice takes and gives float32
                patch.setattr(Lattice, name, in_float32(getattr(Lattice, name), single))
        patch.setattr(sys, "argv", [record.script.__name__, *arguments])
        before = torch.get_default_dtype()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        torch.set_default_dtype(torch.float64 if record.is_double else torch.float32)
        try:
            assert record.script.main() == 0
        finally:
            torch.set_default_dtype(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return found


def in_float32(function: Callable[..., Any], single: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A method of `Lattice` that computes in float32 within a run of float64.

    Args:
        single: `Tensor.float` as it is outside such a run.
    """

    def call(lattice: Lattice, values: Tensor, *rest: Any, **named: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", single)
            torch.set_default_dtype(torch.float32)
            try:
                return function(lattice, single(values), *rest, **named)
            finally:
                torch.set_default_dtype(torch.float64)

    return call


def prepare(record: Record, data: Path, folder: Path) -> list[str]:
    """Writes list, images, labels and files of weights; returns the script's arguments."""
    images = folder / "images"
    images.mkdir()
    for image_id in record.ids:
        name = image_id.rpartition("_")[2] if image_id.startswith("COCO_") else image_id
        places = sorted(data.rglob(f"*{name}.jpg"), key=lambda place: (len(place.name), place))
        if not places:
            pytest.skip(f"no image {name}.jpg below {data}")
        (images / f"{image_id}.jpg").symlink_to(places[0].resolve())
    labels = record.stored["labels"]
    rows = [["id", *(f"c{number}" for number in range(labels.shape[1]))]]
    rows += [[image_id, *map(str, row)] for image_id, row in zip(record.ids, labels.tolist(), strict=True)]
    (folder / "labels.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    arguments = []
    for argument in map(str, record.meta["argv"]):
        key, _, value = argument.partition("=")
        name = Path(value).name  # all files are of this folder
        if key == "train.image_list":
            (folder / name).write_text("".join(f"{image_id}\n" for image_id in record.ids))
        elif key.endswith("pretrained") and name.startswith("fake_"):
            torch.save(imagenet_like(name), folder / name)
        elif key == "diffusion.file":
            write_diffusion(folder / name)
        else:
            name = value
        if not key.startswith("data."):
            arguments.append(f"{key}={name}" if value else argument)
    by_steps = record.script is train_toco
    own = [  # a validation changes no number, and needs masks
        *(["train.eval_steps=0"] if by_steps else ["train.validate_from=-1", "train.validate_also=[]"]),
        "data.dataset=folder", f"data.root={folder}", "data.labels=auto", "data.absent_classes=allow",
        "runtime.device=cpu", "runtime.num_workers=0",
    ]  # fmt: skip
    return [*arguments, *own]


def imagenet_like(name: str) -> dict[str, Tensor]:
    """Weights under the names of an ImageNet file: ``fake_deit_small``, ``fake_resnet50``; ``fake_deit_dN_gG`` are the
    first N blocks of DeiT-S with the top-left G x G of its position grid.
    """
    kind = name.removeprefix("fake_").removesuffix(".pth")
    if kind.startswith("resnet"):
        with torch.device("meta"):
            shapes = {key: tuple(value.shape) for key, value in get_model(kind).state_dict().items()}
        made = {key: tensor_for(key, shape, IMAGENET_SEED) for key, shape in shapes.items()}
        return {key: value * 0.2 if key.endswith("bn3.weight") else value for key, value in made.items()}
    is_cut = kind.startswith("deit_d") and "_g" in kind
    arch = "deit_small" if is_cut else kind
    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape) for key, value in timm.create_model(f"{arch}_patch16_224").state_dict().items()
        }
    depth, grid = map(int, kind.removeprefix("deit_d").split("_g")) if is_cut else (math.inf, 14)
    kept = [key for key in shapes if not key.startswith("blocks.") or int(key.split(".")[1]) < depth]
    made = {key: tensor_for(key, shapes[key], IMAGENET_SEED) for key in kept}
    positions = made["pos_embed"]
    patches = positions[:, 1:].unflatten(1, (14, 14))[:, :grid, :grid].flatten(1, 2)
    made["pos_embed"] = torch.cat([positions[:, :1], patches], dim=1)
    return made


def write_diffusion(path: Path) -> None:
    """The diffusion model: a network of 16 channels as the reference draws it from seed 5, part after part."""
    network = UNet(UNetConfig(dim=16))
    torch.manual_seed(5)
    for part in (
        network.init_conv, network.time_mlp, network.downs, network.mid_block1, network.mid_attn, network.mid_block2,
        network.ups, network.final_res_block, network.final_conv,
    ):  # fmt: skip
        for layer in part.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.reset_parameters()
    save_diffusion(path, GaussianDiffusion(network, TIMESTEPS), 0)


class DeterministicViews:
    """Views without draws: the resized image, a mirrored, darker crop of it, and for ToCo the source of local crops.

    ToCo's boxes leave out what a random crop would have padded: some pixels that depend on the image's size.
    """

    def __init__(self, size: int, kind: str) -> None:
        self.size = size
        self.kind = kind

    def __call__(self, image: Image.Image) -> list[Tensor]:
        first, second = self.first(image), self.second(image)
        if self.kind == "cti":
            return [first, second]
        if self.kind == "toco":
            return [first, second, first.flip(2) * 0.9, self.box(image)]
        return [first]

    def box(self, image: Image.Image) -> Tensor:
        """Top, bottom, left and right of the part of ToCo's first view that is not padding."""
        left = image.height % 3 * PATCH // 2
        return torch.tensor([0, self.size - image.width % 2 * PATCH, left, self.size])

    def first(self, image: Image.Image) -> Tensor:
        """The image resized to S x S."""
        return normalised(image.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def second(self, image: Image.Image) -> Tensor:
        """Resized to S + 32, cropped, mirrored and darkened."""
        larger = image.resize((self.size + 32, self.size + 32), Image.Resampling.BICUBIC)
        crop = larger.crop((24, 8, 24 + self.size, 8 + self.size))
        return normalised(ImageOps.mirror(crop), 0.9)


def normalised(image: Image.Image, brightness: float = 1.0) -> Tensor:
    """Float32 (3, H, W), or float64 in a run of float64."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float()
    return (pixels / 255 * brightness - MEAN) / STD


def replace_draws(patch: pytest.MonkeyPatch, record: Record, found: Replay) -> None:
    """Replaces every draw by the record's, and notes the numbers of each step in ``found``."""
    stored = record.stored
    start, forward, learn, update = Trainer.__init__, Trainer.forward, Trainer.learn, Trainer._update_weights
    close = Trainer.close

    class RecordedBatches(EpochBatches):
        """The record's batches."""

        def __iter__(self) -> Iterator[list[tuple[int, int]]]:
            rows = stored["batches"][stored["epochs"] == self.epoch][self.first_step :]
            return iter([[(self.epoch, int(index)) for index in row] for row in rows])

    def begin(
        self: Trainer, setup: Any, images: Any, views: Any, model: nn.Module, step: Any, *rest: Any, **named: Any
    ) -> None:
        assert images.ids == record.ids
        config = setup.config
        kind = record.script.__name__.split(".")[1]
        size = config.views.crop_size if hasattr(config.views, "crop_size") else config.model.img_size
        if record.is_filled:
            fill_by_recipe(model)
        if kind == "cti":
            prefill(named["parts"]["memory"], stored["labels"])
        start(self, setup, images, DeterministicViews(size, kind), model, step, *rest, **named)

    def seeded(self: Trainer, *inputs: Any) -> dict[str, Tensor]:
        torch.manual_seed(STEP_SEED + self.position.total_steps)
        return forward(self, *(in_default_dtype(value) for value in inputs))

    def note(self: Trainer, losses: dict[str, Tensor], batch: Batch) -> bool:
        weights = term_weights(self.config, record)
        found.losses.append(
            {term: float(value.detach()) * weights.get(term, 1.0) for term, value in losses.items() if value.dim() == 0}
        )
        groups = self.optimizer.param_groups
        found.lr.append([group["lr"] for group in groups])
        found.weight_decay.append([group["weight_decay"] for group in groups])
        return learn(self, losses, batch)

    def note_gradients(self: Trainer) -> None:
        if self.position.total_steps in (0, self.total_steps - 1):
            named = self.model.named_parameters()
            found.grad_norms.append({name: float(p.grad.double().norm()) for name, p in named if p.grad is not None})
        update(self)

    def finish(self: Trainer, next_command: str) -> int:
        found.norms |= {name: float(value.double().norm()) for name, value in self.model.state_dict().items()}
        return close(self, next_command)

    patch.setattr(engine, "EpochBatches", RecordedBatches)
    for name, function in (
        ("__init__", begin), ("forward", seeded), ("learn", note), ("_update_weights", note_gradients),
        ("close", finish),
    ):  # fmt: skip
        patch.setattr(Trainer, name, function)
    if "partners" in stored:
        partners = iter(torch.from_numpy(stored["partners"]))
        patch.setattr(PCSSStep, "draw_partners", lambda *_: next(partners))
    if "fim_plans" in stored:
        plans = {epoch: np.array(order) for epoch, order in json.loads(str(stored["fim_plans"]))}
        patch.setattr(FIM, "_plan", lambda self, epoch: recorded_plan(self, plans[epoch]))
    if "topleft" in stored:
        patch.setattr(toco_step, "local_crops", recorded_crops(stored["topleft"]))


def in_default_dtype(value: Any) -> Any:
    """Images and labels in the run's number format; the labels of a data set are float32."""
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.get_default_dtype()) if is_real else value


def term_weights(config: Any, record: Record) -> dict[str, float]:
    """The weights by which the references of CTI, PCSS and DiG multiply the terms that they log."""
    terms: dict[str, tuple[str, ...]] = {
        "methods.cti": ("bg", "intra", "cross"), "methods.pcss": ("cam_suppressed", "cam_mixed"),
        "methods.dig": ("cls", "pred_diff", "cam", "cls_denoised", "rcam"),
    }  # fmt: skip
    named = terms.get(record.script.__name__.rpartition(".")[0])
    return dict(zip(named, config.loss.weights, strict=True)) if named else {}


def fill_by_recipe(model: nn.Module) -> None:
    """Every tensor by its name; a teacher's are those of its student, gains of weight norms stay 1."""
    state = model.state_dict()
    for name, old in state.items():
        if not name.endswith("weight_g"):
            recipe = name.replace("proj_head_t.", "proj_head.", 1)
            state[name] = tensor_for(recipe, tuple(old.shape), 0).to(old.dtype)
    model.load_state_dict(state)


def prefill(memory: Any, labels: np.ndarray) -> None:
    """CTI's memory, nearly full: the run itself fills it."""
    dim = memory.means().shape[1]
    for label, present in enumerate(labels.any(0).tolist()):
        count = MEMORY if present else FULL_MEMORY
        vectors = np.random.default_rng([0, 555, label]).standard_normal((count, dim)).astype(np.float32)
        rows = torch.zeros(count, len(labels[0]), dtype=torch.int64)
        rows[:, label] = 1
        memory.push(torch.from_numpy(vectors)[:, None].expand(-1, rows.shape[1], -1), rows)


def recorded_plan(fim: FIM, order: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """A round over the record's images."""
    labels = torch.from_numpy(fim.images.labels[order])
    need = torch.full((labels.shape[1],), fim.importance.config.images_per_class)
    return order, wanted_labels(labels, need)


def recorded_crops(places: np.ndarray) -> Callable[..., LocalCrops]:
    """ToCo's local crops at the record's places, step after step."""
    steps = iter(torch.from_numpy(places.astype(np.int64)))

    def crops(images: Tensor, roi: Tensor, picks: Any, crop_size: int) -> LocalCrops:
        topleft = next(steps)
        return LocalCrops(*cut(images, roi, topleft, crop_size), topleft)

    return crops
