"""The mean displacement that the trained network subtracts; semantic masks do not depend on it.

Reference: the second half of step/train_irn.py.
"""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.data.dataset import ImageSet
from common.data.loader import start_worker
from common.data.transforms import eval_transform
from common.run.device import Runtime
from common.run.pool import usable_workers
from common.run.progress import progress
from methods.irn.model import IRN


class _Canvases(Dataset):
    """Images in the upper left corner of a square of zeros, larger images cut off: (3, S, S)."""

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images = images
        self.size = size

    def __getitem__(self, index: int) -> Tensor:
        image = self.images.load_image(index)
        image = image.crop((0, 0, min(image.width, self.size), min(image.height, self.size)))
        canvas = torch.zeros(3, self.size, self.size)
        canvas[:, : image.height, : image.width] = eval_transform(image)
        return canvas


@torch.inference_mode()
def mean_displacement(
    model: IRN, images: ImageSet, size: int, batch_size: int, drop_last: bool, runtime: Runtime, num_workers: int
) -> Tensor:
    """The mean over batches of the batches' mean displacements, which include the canvases' empty parts.

    All processes share the work. The model stays in evaluation mode, and its mean is set to 0.

    Args:
        size: of the canvases.
        drop_last: whether an incomplete last batch is left out (unless it is the only one), as by the reference.

    Returns:
        dy, dx: float32 (2,), on the CPU.
    """
    model.eval()
    model.mean_shift.running_mean.zero_()
    batches = [list(range(len(images)))[start : start + batch_size] for start in range(0, len(images), batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    own = runtime.processes.shard(batches)
    loader = DataLoader(
        _Canvases(images, size), batch_sampler=own, num_workers=usable_workers(min(num_workers, len(own))),
        pin_memory=runtime.device.type == "cuda", generator=torch.Generator(), worker_init_fn=start_worker,
    )  # fmt: skip
    means = []
    for (canvases,) in map(runtime.to_device, progress(loader, "mean displacement", runtime.processes.is_main)):
        with runtime.autocast():
            maps = model.displacement(canvases)
        means.append(maps.float().mean((0, 2, 3)).cpu())
    shares = runtime.processes.gather_objects(means)
    ordered = [shares[number % len(shares)][number // len(shares)] for number in range(len(batches))]
    return torch.stack(ordered).mean(0)
