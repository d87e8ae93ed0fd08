"""Training batches: the same global batches, crops and order for any number of workers, processes or restarts."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.data.dataset import TrainingImages
from common.data.options import check_batch
from common.data.transforms import normalised_views
from common.run.errors import UserError
from common.run.parent import end_with_parent
from common.run.random import draws_from, seed_everything


class TrainViews(Dataset):
    """``(views, label, index)`` of an image.

    The label is multi-hot (C,), or empty where the images have none.

    An item's random draws come from (seed, epoch, image), so a run that is resumed in mid-epoch, or spread over another
    number of workers or processes, sees the same crops.
    """

    def __init__(
        self, images: TrainingImages, make_views: Callable[[Any], list[torch.Tensor]], seed: int,
        load: Callable[[int], Any] | None = None, as_bytes: bool = True,
    ) -> None:  # fmt: skip
        """See the class.

        Args:
            make_views: makes the views of the result of ``load``.
            load: reads an image and its other inputs, by index; None: the image alone.
            as_bytes: leave views that are bytes so, to be normalised on the device.
        """
        self.images = images
        self.make_views = make_views
        self.seed = seed
        self.load = load or images.load_image
        self.as_bytes = as_bytes

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[torch.Tensor], torch.Tensor, int]:
        epoch, index = key
        loaded = self.load(index)
        with draws_from(self.seed, epoch, index):
            views = self.make_views(loaded)
        if not self.as_bytes:
            views = normalised_views(views, 3)
        label = torch.zeros(0) if self.images.labels is None else torch.from_numpy(self.images.labels[index])
        return views, label, index


class EpochBatches(Sampler):
    """Batch sampler over shuffled epochs; yields lists of (epoch, index).

    A step's global batch is a run of ``global_batch`` images of the epoch's permutation. It is cut into
    ``accumulation`` micro-batches and each of these into one part for each process, in rank order. The incomplete last
    batch of an epoch is dropped, or cut into parts whose sizes differ by one at most.
    """

    def __init__(
        self, length: int, global_batch: int, seed: int, rank: int = 0, world: int = 1, accumulation: int = 1,
        drop_last: bool = True,
    ) -> None:  # fmt: skip
        """See the class.

        Raises:
            UserError: the global batch does not divide into processes and micro-batches, or exceeds the data set; or
                the last batch has too few images for them.
        """
        self.parts = world * accumulation
        check_batch(global_batch, world, accumulation)
        if global_batch > length:
            raise UserError(f"train.batch_size={global_batch}, but the training list has only {length} images")
        rest = length % global_batch
        if not drop_last and 0 < rest < self.parts:
            raise UserError(
                f"the last batch of an epoch has {rest} of train.batch_size={global_batch} images, too few for {world} "
                f"process(es) x {accumulation} accumulation step(s). Leave it out with train.drop_last=true"
            )
        self.steps = length // global_batch + (rest > 0 and not drop_last)
        self.length = length
        self.global_batch = global_batch
        self.seed = seed
        self.rank = rank
        self.world = world
        self.accumulation = accumulation
        self.start_at(0)

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return self.steps

    def mean_part(self, step: int) -> float:
        """Images of a process in a micro-batch of a step of the epoch; the mean, should they differ."""
        return min(self.global_batch, self.length - step * self.global_batch) / self.parts

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Sets the epoch and step from which the next iteration begins."""
        self.epoch = epoch
        self.first_step = step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        for step in range(self.first_step, len(self)):
            batch = order[step * self.global_batch : (step + 1) * self.global_batch]
            for micro in range(self.accumulation):
                part = micro * self.world + self.rank
                own = slice(len(batch) * part // self.parts, len(batch) * (part + 1) // self.parts)
                yield [(self.epoch, int(index)) for index in batch[own]]


class _WorkerSeed:
    """Seeds a worker from (seed, epoch, rank, worker); one thread each, as the workers are the parallelism."""

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def __call__(self, worker: int) -> None:
        start_worker(worker)
        seed_everything(self.batches.seed, self.batches.epoch, self.batches.rank, worker)


def start_worker(worker: int) -> None:
    """Starts a loader worker: one thread, and every SIGTERM ignored but its parent's.

    Torchrun and schedulers send SIGTERM to every process of a job; the training needs its workers until it has finished
    the step and saved a checkpoint.
    """
    torch.set_num_threads(1)
    end_with_parent()
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def train_loader(dataset: TrainViews, batches: EpochBatches, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    """The loader of ``batches``; one iteration is (the rest of) the epoch set by `EpochBatches.start_at`."""
    cv2.setNumThreads(0)  # here, not in the workers: a forked one waits for ever for the threads of OpenCV's pool
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=num_workers, pin_memory=pin_memory,
        worker_init_fn=_WorkerSeed(batches),
        generator=torch.Generator(),  # of its own: drawing worker seeds must not shift the model's random stream
    )  # fmt: skip
