"""timm's hub."""

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor


def from_timm_hub(name: str, **changes: Any) -> dict[str, Tensor]:
    """The published weights of a model, or those of an earlier call in the hub's cache.

    Args:
        name: with the tag of the weights.
        changes: arguments of timm's ``create_model`` in place of the model's own.

    Raises:
        Exception: of a dozen types, where there is no network or no such file.
    """
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(f"timm/{name}", "model.safetensors"), str)
    if not cached and not any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        # Ask for the host first: the client would try again for a minute where there is no network.
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    return timm.create_model(name, pretrained=True, **changes).state_dict()
