"""Fingerprints: what files and settings were, so that a later call notices a change and can say which.

A digest is 16 hexadecimal digits of SHA-256. Settings are kept in full, as plain containers, for the message.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SMALL = 1 << 16  # bytes up to which a file is known by its content
SHOWN = 8  # differences that a message lists
MISSING = "nothing"


def digest(*parts: object) -> str:
    """A digest of texts, numbers and bytes, in their order."""
    total = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        total.update(f"{len(content)}:".encode() + content)
    return total.hexdigest()[:16]


def content_digest(path: Path) -> str:
    """A digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def stat_parts(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change (ns) of a file; size -1 where there is none."""
    try:
        found = path.stat()
    except OSError:
        return path.name, -1, 0
    return path.name, found.st_size, found.st_mtime_ns


def files_digest(paths: Iterable[Path]) -> str:
    """A digest of files: name, size and time of change, of small ones name and content.

    So a copy of a folder of masks is equal to it, and a folder of seeds need not be read.
    """
    parts: list[object] = []
    for path in paths:
        name, size, changed = stat_parts(path)
        parts += [name, size, content_digest(path) if 0 <= size <= SMALL else changed]
    return digest(*parts)


def folder_digest(folder: Path, pattern: str = "*") -> str:
    """As `files_digest`, of a folder's files whose name fits a pattern; temporary ones are left out."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and path.suffix not in (".tmp", ".json"))
    return files_digest(found)


def plain(settings: Any) -> Any:
    """Settings as they are read from JSON."""
    return json.loads(json.dumps(settings, default=os.fspath))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        is_section = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of all settings that differ, by dotted key."""
    old, new = flat(before), flat(now)
    keys = [*new, *(key for key in old if key not in new)]
    pairs = {key: (old.get(key, MISSING), new.get(key, MISSING)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def in_words(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences as text."""
    lines = [f"{key} was {old}, is {new}" for key, (old, new) in list(found.items())[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(lines) + more
