"""Sizes of the images of a list, from their headers: what cannot be used is named before the first batch."""

from concurrent.futures import ThreadPoolExecutor

from common.data.dataset import TrainingImages
from common.data.images import CHECK, LEAST_SIDE, ImageFile
from common.run.errors import UserError
from common.run.processes import Processes
from common.run.progress import progress

THREADS = 8
SHOWN = 3  # images that the message names


def usable_size(file: ImageFile, least: int = LEAST_SIDE) -> tuple[int, int]:
    """(H, W) of an image.

    Args:
        least: pixels that each side needs.

    Raises:
        UserError: it is damaged, of another format, or too small for a network.
    """
    size = file.size()
    if min(size) < least:
        raise UserError(
            f"the image {file.path} is of {size[1]}x{size[0]} pixels, too small for a network: each side needs at "
            f"least {least}. Leave it out; {CHECK}"
        )
    return size


def require_sizes(images: TrainingImages, processes: Processes) -> None:
    """Makes sure that all images of a training have headers and sizes that can be used; collective.

    Raises:
        UserError: some have not; the first ones are named.
    """
    share = processes.shard(range(len(images)))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda index: size_problem(images.file(index)), share)
        checked = progress(found, "image headers", processes.is_main, len(share))
        problems = [problem for problem in checked if problem]
    problems = [problem for part in processes.gather_objects(problems) for problem in part]
    if problems:
        more = f" And {len(problems) - SHOWN} more of the {len(images)} images." if len(problems) > SHOWN else ""
        raise UserError(" ".join(problems[:SHOWN]) + more)


def size_problem(file: ImageFile, least: int = LEAST_SIDE) -> str:
    """The message about an image that `usable_size` refuses; empty for any other."""
    try:
        usable_size(file, least)
    except UserError as error:
        return str(error)
    return ""
