"""One file for each image of a list: folders that know which images are done, and the two ways to fill them.

A network makes contents in batches (`common.data.whole.image_batches`), and a thread writes them:

    folder = MaskFolder(run.masks, stamp_of(MASKS, setup.method, settings, images), runtime, overwrite)
    write_each(images, folder, masks_of(model, images, folder.is_done), processes)      # pairs (index, mask)

Work for the CPU alone goes image by image through a pool of processes, where each job writes its own file:

    write_by_jobs(images, folder, job, WorkerPool(workers, "CRF"), processes, "CRF")    # job(index): (function, *args)

Both share the images among all processes, skip images that are done, and print the number of files written.
"""

import contextlib
import functools
import json
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from common.data.dataset import ImageSet
from common.data.masks import write_mask
from common.data.stamp import STAMP_FILE, Stamp, read_stamp
from common.run.device import Runtime
from common.run.errors import UserError, preview
from common.run.files import has_content
from common.run.fingerprint import in_words
from common.run.folder import EXPERIMENT_DIR, SCORE_FILES
from common.run.pool import WorkerPool
from common.run.processes import Processes
from common.run.progress import progress

Content = TypeVar("Content")
Written = TypeVar("Written", contravariant=True)


class Output(Protocol):
    """One or several folders with a file for each image; as text, the place that messages name."""

    @property
    def content(self) -> str:
        """Plural noun for the files, for messages."""

    def is_done(self, image_id: str) -> bool:
        """Whether the image's file is there."""


class Writable(Output, Protocol[Written]):
    """An `Output` that writes an image's file itself."""

    def write(self, image_id: str, content: Written) -> None:
        """Writes one image's file, atomically."""


class BackgroundWriter:
    """Runs file-writing jobs in a thread, so that the model does not wait for the disk.

    The next `submit` or the end of the ``with`` block raises a job's error; it is never lost.
    """

    def __init__(self, max_pending: int = 64) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(max_pending)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def submit(self, job: Callable[[], object]) -> None:
        """Queues a job; waits while too many are pending."""
        self._raise_error()
        self._jobs.put(job)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        if error is None:
            self._raise_error()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # handed to the submitting thread
                    self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def write_each(
    images: ImageSet, output: Writable[Content], made: Iterable[tuple[int, Content]], processes: Processes
) -> int:
    """Writes contents while further ones are made.

    Args:
        made: pairs of an image's index and its content, for the images of this process's share that are not done.

    Returns:
        The number of images written, by all processes together.
    """
    count = 0
    with BackgroundWriter() as writer:
        for index, content in made:
            writer.submit(functools.partial(output.write, images.ids[index], content))
            count += 1
    return _say_written(images, output, count, processes)


def write_by_jobs(
    images: ImageSet, output: Output, job: Callable[[int], tuple[Any, ...]], pool: WorkerPool, processes: Processes,
    title: str,
) -> int:  # fmt: skip
    """Runs a job in a pool of processes for each image of this process's share that is not done.

    Args:
        job: gives an image's function of a module and its arguments, by index.
        title: of the progress bar.

    Returns:
        The number of images written, by all processes together.
    """
    share = [index for index in processes.shard(images.unique()) if not output.is_done(images.ids[index])]
    with pool:
        for index in progress(share, title, processes.is_main):
            pool.submit(*job(index))
    return _say_written(images, output, len(share), processes)


def _say_written(images: ImageSet, output: Output, count: int, processes: Processes) -> int:
    written = sum(processes.gather_objects(count))
    processes.say(f"{output}: {written} {output.content} written, {len(images.unique()) - written} were there")
    return written


class StampedFolder:
    """A folder of one file for each image that one inference writes; refuses to mix two inferences.

    Its settings are in it, see `common.data.stamp`. Files whose image, labels or seed have changed are made again, and
    scores of the folder are deleted before any file is written.

    Attributes:
        path: the folder.
        content: plural noun for its files.
    """

    def __init__(
        self, path: Path, stamp: Stamp, suffixes: Sequence[str], runtime: Runtime, overwrite: bool = False,
        elsewhere: str = "another --name",
    ) -> None:  # fmt: skip
        """Opens the folder, and writes its stamp.

        Args:
            stamp: kind and settings of the files, and the list that they are made for.
            suffixes: of the files in it, such as ``png``.
            overwrite: whether existing files of the same kind are deleted; others never are.
            elsewhere: argument that names another folder, for the message.

        Raises:
            UserError: it holds files of another kind or without a stamp, or of other settings and ``overwrite`` is not
                given.
        """
        self.path, self.content = path, stamp.kind.name
        if runtime.processes.is_main:
            self._open(stamp, suffixes, overwrite, elsewhere)
        runtime.processes.barrier()

    def _open(self, stamp: Stamp, suffixes: Sequence[str], overwrite: bool, elsewhere: str) -> None:
        path = self.path
        found = (file for suffix in suffixes for file in path.glob(f"*.{suffix}"))
        there = {file.stem: file for file in found if file.name != STAMP_FILE}
        before = None if overwrite and not there else read_stamp(path)
        if there and (before is None or before.kind != stamp.kind or (stamp.changes(before) and not overwrite)):
            raise UserError(_refusal(path, stamp, before, elsewhere))
        outdated = list(there) if overwrite else stamp.outdated(before) if before else []
        for image_id in outdated:
            for suffix in suffixes:
                (path / f"{image_id}.{suffix}").unlink(missing_ok=True)
        if outdated and not overwrite:
            print(
                f"{path}: {stamp.kind.name} of {len(outdated)} images are made again, as their image, labels or seed "
                f"have changed: {preview(outdated, 3)}"
            )
        if outdated or stamp.images.keys() - there.keys():
            forget_scores(path)
        path.mkdir(parents=True, exist_ok=True)
        (stamp if before is None or overwrite else stamp.joined(before)).write(path)

    def __str__(self) -> str:
        return str(self.path)


def _refusal(path: Path, stamp: Stamp, before: Stamp | None, elsewhere: str) -> str:
    if before is None:
        return (
            f"{path} holds files without a stamp, which this project has not written; they are neither mixed nor "
            f"deleted. Move them, or write elsewhere with {elsewhere}"
        )
    if before.kind != stamp.kind:
        return (
            f"{path} holds {before.kind}, where {stamp.kind.name} are to be written; write elsewhere with {elsewhere}"
        )
    return (
        f"{path} holds {stamp.kind.name} of another checkpoint or other settings: {in_words(stamp.changes(before))}. "
        f"Start anew with --overwrite, or write elsewhere with {elsewhere}"
    )


def forget_scores(folder: Path) -> None:
    """Deletes the scores of a folder's files from its run folder, as the files are going to change."""
    runs = [parent for parent in folder.parents if parent.parent == EXPERIMENT_DIR]
    for file in sorted(runs[0].glob("*.json")) if runs else ():
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and {"source", "list"} <= content.keys() and content["source"] == str(folder):
                for end in SCORE_FILES:
                    (file.parent / f"{file.stem}{end}").unlink(missing_ok=True)


class MaskFolder(StampedFolder):
    """The folder to which one inference writes its masks, ``<id>.png`` in the colours of VOC; knows which are done."""

    def __init__(
        self, path: Path, stamp: Stamp, runtime: Runtime, overwrite: bool = False, elsewhere: str = "another --name"
    ) -> None:
        """Opens the folder; see `StampedFolder`."""
        super().__init__(path, stamp, ("png",), runtime, overwrite, elsewhere)

    def file(self, image_id: str) -> Path:
        """Path of an image's mask, which need not exist yet."""
        return self.path / f"{image_id}.png"

    def is_done(self, image_id: str) -> bool:
        """Whether the image's mask is there."""
        return has_content(self.file(image_id))

    def write(self, image_id: str, mask: np.ndarray) -> None:
        """Writes an image's mask, labels uint8 (H, W)."""
        write_mask(self.file(image_id), mask)
