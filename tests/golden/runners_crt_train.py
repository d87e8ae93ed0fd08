"""Computes CRT's golden cases of training views, losses and optimiser with the project's code."""

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from common.data.crops import Place, place_at, placed_pixels
from common.data.transforms import normalised
from common.nets.options import ResNetConfig, ViTConfig
from common.train.course import Position
from common.train.optim import set_lr
from methods.crt.config import CRTModelConfig, CRTOptimConfig, CRTViewConfig, LossConfig
from methods.crt.losses import LOSS_TERMS, CRTStep
from methods.crt.model import CRT, STRIDES
from methods.crt.optim import grouped_sgd
from methods.crt.views import CRTViews, draw_view
from tests.golden.harness import Case, Results, built, runner


def reference_name(name: str) -> str:
    """The reference's name of a parameter of `CRT`: there each branch is a network of its own."""
    branch, _, rest = name.partition(".")
    return rest.replace("backbone.", "resnet50.", 1) if branch == "cnn" else rest


def network(case: Case) -> CRT:
    """Both branches with the recipe's weights."""
    cnn, deit = case.model["cnn"], case.model["deit"]
    assert tuple(cnn["strides"]) == STRIDES and deit["stride"] * 2 == deit["tile"] and deit["head"] == "conv3x3"
    config = CRTModelConfig(
        ResNetConfig(cnn["arch"]), ViTConfig(deit["arch"], img_size=deit["tile"], drop_path=0.0), deit["passes"]
    )
    return built(lambda: CRT(config, cnn["num_classes"]), case.entry["weights_seed"], reference_name).train()


class Given(nn.Module):
    """In the place of the network: maps that are there already."""

    def __init__(self, *cams: Tensor) -> None:
        super().__init__()
        self.cams = cams

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps, whatever the images."""
        return self.cams


@runner("crt", "losses")
def losses(case: Case) -> Results:
    """Both networks' losses and gradients in both epochs, and those of given maps."""
    params, x, label = case.params, case.input("x"), torch.as_tensor(case.input("label"))
    assert params["upsample"] == x.shape[-1] and params["align_corners"]
    config = LossConfig(params["cam_lambda"])
    toy = [torch.from_numpy(case.input(name)).requires_grad_() for name in ("toy_a", "toy_b")]
    found = CRTStep(Given(*toy), config)(x, torch.as_tensor(case.input("toy_label")), config.consistency_from)
    grads = torch.autograd.grad(found["total"], toy)
    results: Results = {
        ("toy_loss", None): torch.stack([found[name] for name in LOSS_TERMS]),
        ("toy_grad_a", None): grads[0], ("toy_grad_b", None): grads[1],
    }  # fmt: skip
    model = network(case)
    parameters = {reference_name(name): value for name, value in model.named_parameters()}
    cams = model(x)  # once for both epochs
    for epoch in params["epochs"]:
        found = CRTStep(Given(*cams), config)(x, label, epoch)
        results["total", epoch] = found["total"]
        for branch, cam in zip(("cnn", "deit"), cams, strict=True):
            wanted = [parameters[name] for name in case.stored[f"grad_names_{branch}"]]
            of_cam = torch.autograd.grad(found["total"], cam, retain_graph=True)
            results[f"grad_{branch}", epoch] = gradient_norms(cam, of_cam, wanted, epoch != params["epochs"][-1])
    results |= {(f"loss{number}", None): found[name] for number, name in enumerate(LOSS_TERMS, start=1)}
    return results | {(name, None): found[name] for name in ("logits_cnn", "logits_deit")}


def gradient_norms(cam: Tensor, of_cam: tuple[Tensor, ...], parameters: list[nn.Parameter], keep: bool) -> Tensor:
    """L2 norms of the parameters' gradients, given that of the map; NaN for those that have none."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    grads = iter(torch.autograd.grad(cam, trained, of_cam, retain_graph=keep))
    return torch.stack([next(grads).norm() if value.requires_grad else torch.tensor(torch.nan) for value in parameters])


@runner("crt", "optim")
def optim(case: Case) -> Results:
    """Steps of a backbone and a classifier, and the schedules of both trainings."""
    params, total = case.params, case.params["max_step"]
    lr, head_lr = params["lrs"]
    config = CRTOptimConfig(
        lr=lr, head_scale=head_lr / lr, momentum=params["momentum"], weight_decay=params["weight_decay"],
        power=params["power"],
    )  # fmt: skip
    groups = [[nn.Parameter(torch.from_numpy(value.copy()))] for value in case.input("p0")]
    optimizer, after, used = grouped_sgd(groups, config), [], []
    for step, grads in enumerate(case.input("grads")):
        set_lr(optimizer, config.rate(Position(total_steps=step), total))
        used.append([group["lr"] for group in optimizer.param_groups])
        for (parameter,), grad in zip(groups, grads, strict=True):
            parameter.grad = torch.from_numpy(grad.copy())
        optimizer.step()
        after.append(torch.stack([parameter.detach().clone() for (parameter,) in groups]))
    results: Results = {
        ("params_after", None): torch.stack(after), ("lr_used_f64", None): np.array(used),
        ("momentum_f64", None): np.array([group["momentum"] for group in optimizer.param_groups]),
    }  # fmt: skip
    tables = {"cam": ("cam_lr_f64", "cam_lr_head_f64"), "irn": ("irn_lr_edge_f64", "irn_lr_dp_f64")}
    for name, roles in tables.items():
        total = params[f"{name}_max_step"]
        rates = np.array([config.rate(Position(total_steps=int(step)), total) for step in case.input(f"{name}_steps")])
        results |= {(role, None): rates * scale for role, scale in zip(roles, (1, config.head_scale), strict=True)}
    return results


@runner("crt", "data")
def data(case: Case) -> Results:
    """Seeded training views with their draws, and the plain crop of validation."""
    params, image, results = case.params, Image.fromarray(case.input("image")), {}
    config = CRTViewConfig(params["long_range"], params["crop"])
    numbers = [output["case"] for output in case.entry["outputs"].values() if output["role"] == "seed"]
    for number in numbers:
        seed = int(case.stored[f"seed{number}"])
        random.seed(seed)
        target = random.randint(*config.long_side)
        random.seed(seed)
        view = draw_view(image.height, image.width, config)
        random.seed(seed)
        (out,) = map(normalised, CRTViews(config)(image))
        box = [*ends(view.rows, "on_canvas"), *ends(view.columns, "on_canvas")]
        box += [*ends(view.rows, "on_source"), *ends(view.columns, "on_source")]
        found = {
            "target_long": target, "flip": int(view.flip), "resized_hw": view.size, "box": box, "out": out,
            "out_mean": out.mean(), "dtype": str(out.numpy().dtype),
        }  # fmt: skip
        results |= {(role, number): value for role, value in found.items()}
    top_left = (place_at(side, config.crop_size, 0) for side in image.size)
    return results | {("val_out", None): normalised(placed_pixels(image, *top_left, config.crop_size))}


def ends(place: Place, which: str) -> tuple[int, int]:
    """Where a part of a place begins and ends."""
    part = getattr(place, which)
    return part.start, part.stop
