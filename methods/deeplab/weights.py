"""Weights of other origin under the network's names: Caffe's ResNets, DeepLab checkpoints, torchvision's ResNets."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.nets.load import load_checked, state_dict_in
from common.nets.pretrained import imagenet_weights
from common.run.errors import UserError, preview
from common.tensors import required
from methods.deeplab.config import DeepLabConfig, require_initial
from methods.deeplab.model import DeepLab

PREFIX = "base."
HEAD = "aspp."
COUNTER = "num_batches_tracked"
RANDOM = (
    "WARNING: random weights (model.pretrained=none) under frozen norms: deep networks hardly learn so. This is meant "
    "for tests, demos and experiments."
)
_KERNELS = {"1": "reduce", "2": "conv3x3", "3": "increase", None: "shortcut"}


@dataclass(frozen=True)
class Layout:
    """An origin of weights.

    Attributes:
        title: for messages.
        mark: name of a tensor that only this origin has.
        input: form of their training images, a value of ``views.input``; empty: not known.
        rename: maps the name of a tensor to its name in `DeepLabV2`.
    """

    title: str
    mark: str
    input: str
    rename: Callable[[str], str]


def from_torchvision(name: str) -> str:
    """Maps torchvision's and timm's name of a ResNet's tensor to its name in `DeepLabV2`; the classifier's stays.

    ``layer3.4.conv2.weight`` becomes ``layer4.block5.conv3x3.conv.weight``.
    """
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
    if stem:
        return f"layer1.conv1.{stem[1]}.{stem[2]}"
    block = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)", name)
    if not block:
        return name
    stage, number, kind, index, part, leaf = block.groups()
    kind = kind or ("conv", "bn")[int(part)]
    return f"layer{int(stage) + 1}.block{int(number) + 1}.{_KERNELS[index]}.{kind}.{leaf}"


LAYOUTS = (
    Layout("a DeepLab checkpoint", "base.layer1.conv1.conv.weight", "", lambda name: name.removeprefix(PREFIX)),
    Layout("a ResNet of Caffe", "layer1.conv1.conv.weight", "caffe", lambda name: name),
    Layout("a ResNet of torchvision or timm", "layer1.0.conv1.weight", "imagenet", from_torchvision),
)


def start_deeplab(model: DeepLab, config: DeepLabConfig, is_resumed: bool = False) -> str:
    """Starts a network from the configured weights, if a training begins; returns their origin, for the log.

    The file must hold the whole backbone. The ASPP is loaded where the file has one for as many labels.

    Raises:
        UserError: the weights do not exist, belong to another network, or were trained on other inputs.
    """
    if is_resumed:
        return "resumed"
    if config.model.pretrained == "none":
        return RANDOM
    state, name = _read(config.model.pretrained)
    layout = _layout_of(state, name)
    if layout.input not in ("", config.views.input):
        raise UserError(
            f"{name} is {layout.title}: its inputs were of the form {layout.input!r}, not {config.views.input!r}. Set "
            f"views.input={layout.input}"
        )
    renamed = {layout.rename(key): value for key, value in state.items()}
    ignored = [key for key in renamed if key.startswith("fc.")]
    head = {key.removeprefix(HEAD): value for key, value in renamed.items() if key.startswith(HEAD)}
    body = {key: value for key, value in renamed.items() if key not in ignored and not key.startswith(HEAD)}
    # The backbone as a module of its own: exactly its tensors are asked for.
    backbone = nn.ModuleDict({key: part for key, part in model.base.named_children() if key != "aspp"})
    coverage = load_checked(backbone, with_counters(body), name)
    notes = [f"backbone {coverage}", _load_head(model.base.aspp, head, name)]
    if ignored:
        notes.append(f"ignored: {preview(ignored)}")
    if layout.input == "imagenet" and config.model.stride_in == "reduce":
        notes.append(
            "an approximation: these weights have the stride of layer3 in the 3x3 kernel, this network in the 1x1 "
            "kernel (model.stride_in=conv3x3 puts it where they have it)"
        )
    if not layout.input:
        notes.append(f"taken to be trained with views.input={config.views.input}")
    return f"{name}, {layout.title}: " + "; ".join(notes)


def released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trained DeepLab's state dict, of any release, under this network's names, with prefix and counters.

    Any other state dict stays as it is; it does not fit the network.
    """
    if f"{HEAD}c0.weight" in state:
        state = {PREFIX + name: value for name, value in state.items()}
    return with_counters(state)


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with a counter for every norm; old files lack them, and nothing reads them."""
    mean = "running_mean"
    norms = [name.removesuffix(mean) for name in state if name.endswith(mean)]
    return {name + COUNTER: torch.tensor(0) for name in norms} | dict(state)


def _read(source: str) -> tuple[dict[str, Tensor], str]:
    """The state dict that ``model.pretrained`` means, and its origin."""
    if source == "torchvision":
        return required(imagenet_weights("resnet101", "auto"), "ImageNet weights"), "resnet101 of ImageNet"
    require_initial(source)
    return state_dict_in(Path(source)), source


def _load_head(aspp: nn.Module, head: Mapping[str, Tensor], name: str) -> str:
    """Loads the ASPP if the weights have one of its shape; returns its origin, for the log."""
    if not head:
        return "ASPP at random"
    wrong = [key for key, value in aspp.state_dict().items() if key not in head or head[key].shape != value.shape]
    if wrong:
        return f"ASPP at random, as the file's has other labels or rates ({preview(wrong, 2)})"
    return f"ASPP {load_checked(aspp, head, name)}"


def _layout_of(state: Mapping[str, Tensor], name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.mark in state:
            return layout
    known = "; ".join(f"{layout.title} has {layout.mark}" for layout in LAYOUTS)
    raise UserError(f"{name} holds no weights that can be mapped: {preview(state, 3)}. Known: {known}")
