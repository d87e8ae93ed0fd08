"""A trained network that predicts images without labels.

    from common.predict.predictor import Predictor

    predictor = Predictor.of_run("exp")                # or Predictor.of_weights("69.5_pascal.pth", "cti_cvpr24")
    prediction = predictor("photo.jpg")                # or predictor("photo.jpg", ["cat", "dog"])
    print(prediction.scores, prediction.mask.shape)    # {"cat": 0.98} (375, 500)

`scripts/predict.py` uses `Predictor.predict`, which takes images in batches.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.data.dataset import LabelledImages, class_names
from common.data.images import LEAST_SIDE, ImageRules
from common.data.seed_labels import seed_labels
from common.data.seeds import Seed
from common.data.transforms import eval_transform
from common.data.whole import Failures
from common.masks.face import MaskFace
from common.masks.network import infer_logits, joined, mask_of
from common.masks.options import SegmentConfig
from common.nets.load import load_weights, weights_identity
from common.nets.vit import ViTBackbone
from common.pipeline.builders import PREDICTING, named, predicting
from common.predict.photos import Photos, find_photos
from common.predict.presence import above, named_classes
from common.run.config import config_path, load_config
from common.run.device import Runtime
from common.run.errors import UserError
from common.run.files import require_weights
from common.run.folder import RunFolder, epoch_checkpoint
from common.run.processes import Processes
from common.run.provenance import digest
from common.score.images import has_masks
from common.seeds.face import SeedFace
from common.seeds.infer import find_seeds
from common.seeds.score import tune, tune_classes
from common.seeds.thresholds import DEFAULT, FILE, Tuned, probabilities, read_tuned, write_entry

PATCHES = 64  # a side of a tile: attention maps of 4,096 tokens


@dataclass
class Prediction:
    """An image's prediction.

    Attributes:
        image_id: the image's id.
        path: its file.
        mask: labels uint8 (H, W): 0 background, class index + 1.
        scores: by class name, of the classes that were looked for or found: a classifier's probability that the image
            shows the class; of a segmentation network the mean probability of the class's pixels.
        seed: {class index: float32 (H, W)}; of classifiers alone.
    """

    image_id: str
    path: Path
    mask: np.ndarray
    scores: dict[str, float]
    seed: Seed = field(default_factory=dict)


def tile_of(model: nn.Module) -> int:
    """The side of the tiles of large images, in pixels: `PATCHES` patches of a transformer, else of 16 pixels."""
    patches = [part.patch_size for part in model.modules() if isinstance(part, ViTBackbone)]
    return PATCHES * (patches[0] if patches else 16)


class Predictor:
    """A network with its weights, classes and thresholds.

    Attributes:
        classes: C foreground class names.
        tuned: thresholds that a validation has found for these weights, if any.
        threshold: a seed's pixels are background where no map is above it; a segmentation network does not use it.
        identity: what identifies the network, for manifests.
    """

    def __init__(
        self, config: Any, weights: Path, runtime: Runtime, key: str = "", threshold: float | None = None
    ) -> None:
        """Loads the weights.

        Args:
            config: of the method's own class.
            key: as `common.nets.load.state_dict_in`.
            threshold: of the background; None: the tuned one, else the configuration's ``eval.fixed_threshold``.

        Raises:
            UserError: the weights or the class names cannot be read, or do not fit each other.
        """
        self.config, self.runtime = copy.deepcopy(config), runtime
        self.face: SeedFace | MaskFace = named(PREDICTING[config.method].face)
        self.is_segmenter = isinstance(self.face, MaskFace)
        self.tuned: Tuned | None = read_tuned(weights)
        self.classes = self.tuned.classes if self.tuned else class_names(config.data)
        self.model = self.face.build(config, len(self.classes))
        section = self._section()
        section.tile = section.tile or tile_of(self.model)
        self.coverage = load_weights(self.model, weights, runtime, self.face.needed, key)
        self.weights = weights
        self.identity = {**weights_identity(weights, config.model), "precision": runtime.precision}
        self._given = threshold
        self.threshold, self._origin = self._background(threshold)

    @classmethod
    def of_run(
        cls, name: str, overrides: Sequence[str] = (), epoch: int | None = None, threshold: float | None = None
    ) -> "Predictor":
        """The network of a run.

        Args:
            overrides: ``key=value`` texts for its configuration, such as ``runtime.device=cpu``.
            epoch: epoch or iteration of the weights; None: the best, else the last one.
            threshold: as ``__init__``.

        Raises:
            UserError: there is no such run, or as ``__init__``.
        """
        run = RunFolder(name).existing()
        kind = predicting(run.config)
        weights = epoch_checkpoint(run.checkpoints, epoch, named(kind.file), kind.unit)
        config = load_config(named(kind.config), run.config, overrides)
        return cls(config, weights, Runtime(config.runtime, Processes()), threshold=threshold)

    @classmethod
    def of_weights(
        cls, file: str | Path, exp: str, overrides: Sequence[str] = (), threshold: float | None = None
    ) -> "Predictor":
        """The network of a file of weights from elsewhere, by an experiment in ``configs/``; as `of_run`."""
        require_weights(file)
        path = config_path(exp)
        config = load_config(named(predicting(path).config), path, overrides)
        return cls(config, Path(file), Runtime(config.runtime, Processes()), threshold=threshold)

    def tune(self, list_name: str) -> Path:
        """Finds the thresholds on labelled images of the configuration's data set; stores and uses them. Collective.

        Args:
            list_name: of images with labels; where they have true masks, the background threshold is found, too.

        Returns:
            The file beside the weights that has them now.

        Raises:
            UserError: the network is a segmentation network, or images or labels are missing.
        """
        if isinstance(self.face, MaskFace):
            raise UserError(f"{self.config.method} predicts masks without thresholds: there is nothing to tune")
        images = LabelledImages(self.config.data, list_name)
        images.require_labels(every=False)
        maps_of = self.face.maps_of(self.model, self.config.infer)
        if has_masks(images):
            _, entry = tune(maps_of, images, self.config.infer, self.config.eval, self.runtime)
        else:
            entry = tune_classes(maps_of, images, self.config.infer, self.runtime)
        assert entry is not None, "a classifier that predicts gives class logits"
        self.runtime.processes.on_main(lambda: write_entry(self.weights, entry))
        self.tuned = read_tuned(self.weights)
        self.threshold, self._origin = self._background(self._given)
        return self.weights.parent / FILE

    def __call__(self, image: str | Path, classes: Sequence[str] | None = None) -> Prediction:
        """Predicts an image.

        Args:
            classes: names of the classes that it shows; None: those that the network tells.

        Raises:
            UserError: the image cannot be read, is a folder, or a name is no class.
        """
        if Path(image).is_dir():
            raise UserError(f"{image} is a folder; Predictor.predict takes many images, this call takes one")
        ids, _ = find_photos([image])
        photos = self.photos(ids)
        for problem in photos.unreadable(least=self.least_side()).values():
            raise UserError(problem)
        if classes is not None:
            photos.labels = named_classes(",".join(classes), self.classes)[None]
        return next(self.predict(photos))

    def photos(self, files: dict[str, Path]) -> Photos:
        """Images for `predict`, by id, read as the configuration's section ``data`` says."""
        rules = ImageRules(self.config.data.exif, tuple(self.config.data.range))
        return Photos(list(files), list(files.values()), self.classes, rules)

    def predict(
        self, photos: Photos, is_done: Callable[[str], bool] = lambda image_id: False, failures: Failures | None = None
    ) -> Iterator[Prediction]:
        """Yields the predictions of this process's share of images, those of one size together, the largest first.

        Args:
            is_done: whether an image needs no prediction, by its id.
            failures: takes the messages about images that cannot be decoded; None: the first one is raised.

        Raises:
            UserError: an image cannot be read.
        """
        if isinstance(self.face, MaskFace):
            return self._masks(self.face, photos, is_done, failures)
        return self._seeds(self.face, photos, is_done, failures)

    def least_side(self) -> int:
        """The pixels that each side of an image needs to have a patch at every scale; CRT and ToCo enlarge images."""
        section = self._section()
        is_scaled = not section.resize if isinstance(section, SegmentConfig) else section.transform() is eval_transform
        patches = [part.patch_size for part in self.model.modules() if isinstance(part, ViTBackbone)]
        least = math.ceil(max(patches, default=1) / min(section.scales)) if is_scaled else 0
        return max(LEAST_SIDE, least)

    def sha256(self) -> str:
        """The hash of the file of the weights."""
        return digest(self.weights)

    def settings(self) -> dict[str, Any]:
        """All that a prediction depends on besides its image and given labels."""
        limits = {} if self.is_segmenter else {"background": self.threshold, "presence": self.presence()}
        reading = {"exif": self.config.data.exif, "range": list(self.config.data.range)}
        return {**self.identity, **self._section().settings(), **reading, **limits}

    def notes(self, has_labels: bool) -> list[str]:
        """Lines for the user: the weights, and the origin of the thresholds."""
        lines = [f"{self.weights}: {self.coverage}, on {self.runtime.describe()}"]
        if self.is_segmenter:
            return lines
        if not (self.tuned and self.tuned.list_name) and not has_labels:
            lines.append(
                f"WARNING: {self.weights.parent} has no {FILE} of these weights: an image is taken to show a class "
                f"from a probability of {DEFAULT} on; a validation in training, or --tune_on, finds better thresholds"
            )
        lines.append(f"background threshold: {self.threshold:.3g} ({self._origin})")
        return lines

    def presence(self) -> list[float]:
        """The probability from which an image shows a class, for each class."""
        return self.tuned.thresholds if self.tuned else [DEFAULT] * len(self.classes)

    def _section(self) -> Any:
        return self.face.section(self.config) if isinstance(self.face, MaskFace) else self.config.infer

    def _background(self, given: float | None) -> tuple[float, str]:
        """The threshold of the background, and its origin."""
        if given is not None:
            return given, "given"
        if self.tuned and self.tuned.background is not None:
            return self.tuned.background, f"best of list {self.tuned.background_list!r}"
        return self.config.eval.fixed_threshold, "eval.fixed_threshold of the configuration"

    def _seeds(
        self, face: SeedFace, photos: Photos, is_done: Callable[[str], bool], failures: Failures | None
    ) -> Iterator[Prediction]:
        rule = above(self.presence())

        def labels_of(indices: list[int]) -> Any:
            return rule if photos.labels is None else torch.from_numpy(photos.labels[indices])

        maps_of = face.maps_of(self.model, self.config.infer)
        for found in find_seeds(
            maps_of, photos, labels_of, self.config.infer, self.runtime, is_done, "predictions", failures
        ):
            shape = next(iter(found.seed.values())).shape if found.seed else photos.file(found.index).size()
            mask = seed_labels(found.seed, self.threshold, (shape[0], shape[1]))
            assert found.logits is not None, "a classifier that predicts gives class logits"
            scores = probabilities(found.logits)
            named_scores = {self.classes[key]: float(scores[key]) for key in found.seed}
            yield Prediction(photos.ids[found.index], photos.images[found.index], mask, named_scores, found.seed)

    def _masks(
        self, face: MaskFace, photos: Photos, is_done: Callable[[str], bool], failures: Failures | None
    ) -> Iterator[Prediction]:
        batches = infer_logits(
            face.logits_of(self.model, self.config), photos, face.section(self.config), self.runtime, is_done,
            face.transform(self.config), failures,
        )  # fmt: skip
        for indices, bands in batches:
            masks: list[np.ndarray] = []
            certainties: list[np.ndarray] = []  # probabilities of the chosen labels
            for logits in bands:
                if photos.labels is not None:
                    absent = torch.from_numpy(np.pad(photos.labels[indices] == 0, ((0, 0), (1, 0))))  # b C+1
                    logits = logits.masked_fill(absent.to(logits.device)[..., None, None], -torch.inf)
                masks.append(mask_of(logits))
                certainties.append((logits.amax(1) - logits.logsumexp(1)).exp().cpu().numpy())
            for index, mask, own in zip(indices, joined(masks), joined(certainties), strict=True):
                there = [label for label in np.unique(mask).tolist() if label]
                scores = {self.classes[label - 1]: float(own[mask == label].mean()) for label in there}
                yield Prediction(photos.ids[index], photos.images[index], mask, scores)
