"""Origin of a result: commit, versions, device, hashes of files."""

import hashlib
import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from common.run.files import ROOT

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "pydensecrf2")


def provenance() -> dict[str, Any]:
    """Commit, versions and device as plain containers, for a JSON file."""
    return {"commit": commit(), "python": platform.python_version(), "versions": versions(), "device": device()}


def commit() -> str:
    """The commit of the working tree, with ``+`` if files differ from it; ``unknown`` outside a repository."""
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def device() -> str:
    """The GPU, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()})"


@cache
def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
