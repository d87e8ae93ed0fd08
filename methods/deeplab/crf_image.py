"""The dense CRF's input image; a module of its own, as every process of the CRF imports it."""

import numpy as np

from common.masks.options import CAFFE_MEAN_BGR

# The reference's cast of mean-subtracted values to uint8, as on x86: truncated, modulo 256 (-3.7 becomes 253). It is
# spelt out, as other processors cast otherwise. Row v, column c: pixel value v of channel c.
_WRAPPED = (np.trunc(np.arange(256)[:, None] - np.array(CAFFE_MEAN_BGR)).astype(np.int32) & 255).astype(np.uint8)


def clean_image(image: np.ndarray) -> np.ndarray:
    """The image in BGR: uint8 RGB (H, W, 3) -> (H, W, 3)."""
    return np.ascontiguousarray(image[..., ::-1])


def wrapped_image(image: np.ndarray) -> np.ndarray:
    """The mean-subtracted image in BGR, cast to uint8 as the reference does: uint8 RGB (H, W, 3) -> (H, W, 3)."""
    return _WRAPPED[image[..., ::-1], np.arange(3)]
