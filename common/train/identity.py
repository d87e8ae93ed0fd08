"""What makes a training the run that it is: a resumed one must share it with its checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dataset import TrainingImages
from common.run.config import config_path, leaves, load_config
from common.run.errors import preview
from common.run.fingerprint import MISSING, differences, digest, files_digest, in_words, plain, stat_parts
from common.run.script import Setup

# Sections and keys that a run may change when it is resumed. Images, labels and classes are compared by content.
FREE = (
    "optim", "infer", "eval", "walk", "sampling", "seeds", "irn", "train", "runtime", "data.root", "data.labels",
    "data.classes", "data.image", "data.mask", "data.split",
)  # fmt: skip
BOUND = ("train.batch_size", "train.drop_last", "runtime.seed")  # exceptions
SIZES = "bytes of the image files"  # by name; a damaged file may be repaired, so they are compared apart


def identity_of(
    setup: Setup, images: TrainingImages, drop_last: bool, inputs: Mapping[str, Iterable[Path]]
) -> dict[str, Any]:
    """The settings and inputs that a checkpoint belongs to, by names that a message shows.

    Args:
        drop_last: whether the incomplete last batch of an epoch is left out.
        inputs: files that the training reads besides images, by a plural noun.
    """
    config = setup.config
    labels = images.labels
    found = {
        "train.batch_size": config.train.batch_size, "training images": len(images.ids),
        "classes": 0 if labels is None else len(images.classes), "runtime.seed": config.runtime.seed,
        "train.drop_last": drop_last, "list of the images": digest(*images.ids),
        "class names": [] if labels is None else list(images.classes),
        "image labels": "" if labels is None else digest(np.packbits(labels > 0).tobytes()),
        "image files": digest(*(path.name for path in images.images)),
        SIZES: {path.name: stat_parts(path)[1] for path in images.images},
        **{name: files_digest(files) for name, files in inputs.items()},
    }  # fmt: skip
    return plain({**_bound(config), **found})


def _bound(config: Any) -> dict[str, Any]:
    """The values of a configuration that a run keeps, by key."""
    return {leaf.key: leaf.default for leaf in leaves(config) if not _is_free(leaf.key)}


def _is_free(key: str) -> bool:
    is_in_free = any(key == name or key.startswith(f"{name}.") for name in FREE)
    return (is_in_free and key not in BOUND) or key.endswith("pretrained")


def other_run(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences that make it another run, as text; empty if there are none.

    What an older checkpoint did not record is not compared.
    """
    found = differences(_without_sizes(saved), _without_sizes(now))
    text = in_words({key: pair for key, pair in found.items() if MISSING not in pair})
    replaced = replaced_images(saved, now)
    if not text and 2 * len(replaced) > len(now.get(SIZES, {})):
        return f"{len(replaced)} of {len(now[SIZES])} image files are others: {preview(replaced, 3)}"
    return text


def replaced_images(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the image files that have another number of bytes than when the checkpoint was written."""
    before = saved.get(SIZES, {})
    return [name for name, size in now.get(SIZES, {}).items() if before.get(name, size) != size]


def _without_sizes(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity.items() if key != SIZES}


def changes_of_resumed(setup: Setup) -> list[str]:
    """Lines that tell which settings a resumed run changes, and which of ``--exp`` it does not take."""
    own = _values(load_config(type(setup.config), setup.run.config))
    lines = []
    changed = differences(own, _values(setup.config))
    if changed:
        lines.append(f"note: the run goes on with other settings: {in_words(changed)}")
    if setup.args.exp:
        given = _values(load_config(type(setup.config), config_path(setup.args.exp)))
        ignored = differences(own, given)
        if ignored:
            values = {key: (f"{old} in the run", f"{new} there") for key, (old, new) in ignored.items()}
            lines.append(
                f"note: a resumed run keeps its own configuration; --exp {setup.args.exp} is not read, which differs: "
                f"{in_words(values)}"
            )
    return lines


def _values(config: Any) -> dict[str, Any]:
    return {leaf.key: plain(leaf.default) for leaf in leaves(config)}
