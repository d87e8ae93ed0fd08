"""A round that measures frequency importance (the reference's "FIM"): the blocks of the spectrum that a class needs.

One block after the other is removed from the images; the class losses without a block are its importance. Losses are
sums over images, so all processes share a round, and an interrupted round goes on where it stopped.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.data.dataset import ImageSet, LabelledImages
from common.data.loader import start_worker
from common.data.transforms import square_transform
from common.run.device import Runtime
from common.run.folder import RunFolder
from common.run.log import RunLog
from common.run.pool import usable_workers
from common.run.processes import Processes
from common.run.progress import ProgressBar
from common.tensors import size_of, sum_of
from common.train.course import Position
from common.visual import heat_maps
from methods.pcss.frequency import BlockFilters, block_filters, filtered, spectrum
from methods.pcss.importance import FrequencyImportance
from methods.pcss.model import PCSS

STEP_IMAGES = 4  # images per process between two checks for stop signals; each takes about a hundred passes


def wanted_labels(labels: Tensor, need: Tensor) -> Tensor:
    """Which labels of a sequence of images count, the first ``need[c]`` of each class: bool (N, C).

    Args:
        labels: multi-hot (N, C), in the order of the round.
        need: images still needed of each class (C,).
    """
    present = labels > 0
    return present & (present.cumsum(0) <= need)


@torch.inference_mode()
def block_losses(
    model: PCSS, images: Tensor, wanted: Tensor, filters: BlockFilters, batch_size: int, runtime: Runtime
) -> Tensor:
    """Class losses (C, g, g) with each block of the spectrum removed, summed over the images whose label is wanted.

    The loss of class c is softplus(-cls_c) + softplus(-pcls_c), the cross-entropy of both logits to "present".

    Args:
        images: (n, 3, S, S).
        wanted: (n, C).
        filters: on the images' device.
        batch_size: filtered images per forward pass.
    """
    spectra = spectrum(images)  # one FFT for all filters
    size = size_of(images)
    at_once = max(batch_size // len(images), 1)
    wanted = wanted.float()
    losses = []
    for weights in filters.weights.split(at_once):
        reduced = filtered(spectra, weights[:, None, None], size)  # m n 3 S S
        with runtime.autocast():
            logits = model.logits(reduced.flatten(0, 1))
        both = sum_of(F.softplus(-part.float()) for part in logits)
        each = both.unflatten(0, (len(weights), len(images)))  # m n C
        losses.append((each * wanted).sum(1))
    return torch.cat(losses)[filters.owner].permute(2, 0, 1)  # C g g


class FIM:
    """Measures rounds over a training list, with the test transform."""

    def __init__(self, importance: FrequencyImportance, images: LabelledImages, runtime: Runtime) -> None:
        """Makes the filters.

        Raises:
            UserError: the image does not divide into blocks.
        """
        config = importance.config
        filters = block_filters(importance.size, config.block, config.corrected)
        self.filters = BlockFilters(filters.weights.to(runtime.device), filters.owner.to(runtime.device))
        self.importance = importance
        self.images = images
        self.runtime = runtime

    def measure(self, model: PCSS, epoch: int, is_stopping: Callable[[], bool]) -> dict[str, Tensor] | None:
        """One round, or the rest of it.

        Returns:
            The result of `FrequencyImportance.finish_round`; None if a signal stopped the round, whose state stays in
            the importance.
        """
        model.eval()
        importance = self.importance
        processes = self.runtime.processes
        importance.begin_round(epoch)
        order, wanted = self._plan(epoch)
        title = f"epoch {epoch}: frequency importance"
        with ProgressBar(title, len(order), importance.done, active=processes.is_main) as bar:
            for count, losses in self._losses(model, order, wanted, processes):
                importance.add(processes.gather_rows(losses[None]).sum(0), count)
                bar.advance(count)
                if is_stopping():
                    return None
        return importance.finish_round()

    def _plan(self, epoch: int) -> tuple[np.ndarray, Tensor]:
        """The images that a round needs, in a fresh order, and their wanted labels."""
        seed = self.runtime.config.seed
        # The last number makes this order differ from the order of the epoch's batches; a 0 would not.
        order = np.random.default_rng([seed, epoch, 1]).permutation(len(self.images))
        labels = torch.from_numpy(self.images.labels[order])
        wanted = wanted_labels(labels, torch.full((labels.shape[1],), self.importance.config.images_per_class))
        used = wanted.any(1)
        return order[used.numpy()], wanted[used]

    def _losses(
        self, model: PCSS, order: np.ndarray, wanted: Tensor, processes: Processes
    ) -> Iterator[tuple[int, Tensor]]:
        """Steps from ``importance.done`` on: number of all processes' images, and this one's losses (C, g, g)."""
        config = self.importance.config
        device = self.runtime.device
        stride = STEP_IMAGES * processes.world
        first = STEP_IMAGES * processes.rank
        starts = range(self.importance.done, len(order), stride)
        own = [range(start + first, min(start + first + STEP_IMAGES, len(order))) for start in starts]
        batches = [[(int(order[place]), place) for place in places] for places in own if len(places)]
        loader = DataLoader(
            _SquareImages(self.images, self.importance.size), batch_sampler=batches,
            num_workers=usable_workers(self.runtime.config.num_workers), worker_init_fn=start_worker,
            generator=torch.Generator(),
        )  # fmt: skip
        loaded = iter(loader)
        for start, places in zip(starts, own, strict=True):
            if len(places):
                pixels, rows = next(loaded)
                losses = block_losses(
                    model, pixels.to(device), wanted[rows].to(device), self.filters, config.batch_size, self.runtime
                )
            else:  # the last images are on the other processes
                losses = torch.zeros(self.importance.totals.shape, device=device)
            yield min(stride, len(order) - start), losses


def report_round(
    ratios: dict[str, Tensor], importance: FrequencyImportance, epoch: int, classes: Sequence[str], log: RunLog,
    position: Position, run: RunFolder,
) -> None:  # fmt: skip
    """Logs a finished round, and draws the masks into ``importance/<epoch>.png`` of the run folder.

    Args:
        ratios: the result of `FIM.measure`.
    """
    measured = ratios["min_ratio"].isfinite()
    means = {name: float(values[measured].mean()) for name, values in ratios.items() if measured.any()}
    log.numbers(position.total_steps, means, kind="importance", epoch=epoch)
    path = run.importance / f"{epoch:03d}.png"
    log.say(f"epoch {epoch}: frequency importance measured for {int(measured.sum())} classes: {path}")
    if log.active:
        heat_maps(path, importance.current.cpu().numpy(), classes, f"frequency importance after epoch {epoch}")


class _SquareImages(Dataset):
    """``(image, place)`` for items ``(index, place)``."""

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images = images
        self.size = size

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, place = key
        return square_transform(self.images.load_image(index), self.size), place
