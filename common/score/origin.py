"""The fingerprint of a score: all that it depends on, for its JSON and for whoever asks whether it is still true."""

from typing import Any

from common.run.fingerprint import digest, files_digest
from common.score.files import FilePredictions, MaskFiles
from common.score.options import EvalConfig


def score_fingerprint(masks: MaskFiles, predictions: FilePredictions, config: EvalConfig) -> dict[str, Any]:
    """The fingerprint of the scores of files.

    Returns:
        ``ids`` and ``masks``: digests of the list and the true masks; ``predictions``: of the files, which the stamp of
        their folder describes in ``stamp`` (None: it has none); ``eval``: the thresholds.
    """
    stamp = predictions.stamp()
    described = {key: value for key, value in stamp.as_dict().items() if key != "images"} if stamp else None
    return {
        "ids": digest(*masks.ids), "masks": files_digest(map(masks.path, masks.ids)),
        "predictions": predictions.digest(masks.ids), "stamp": described, "eval": dict(vars(config)),
    }  # fmt: skip
