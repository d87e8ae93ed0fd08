"""Reads the text files that users bring (lists, classes, tables, JSON, YAML): UTF-8, with or without a byte order mark.

Files in another encoding, binary files, files of a wrong kind and files above a size are refused in one line that
names the file.
"""

import codecs
import json
import re
import stat
from pathlib import Path
from typing import Any

from common.run.errors import UserError, first_line

MEBIBYTE = 1 << 20
LIMIT = 64 * MEBIBYTE  # of lists, tables and small JSON files; the id lists and tables of COCO have below 2 MiB
_LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which also cuts at form feeds and Unicode separators
_MARKS = (  # the longer ones first: UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip


def read_bytes(path: str | Path, noun: str, limit: int = LIMIT) -> bytes:
    """The content of a file.

    Args:
        noun: the file in a message, such as "the image list".
        limit: the most bytes it may have.

    Raises:
        UserError: there is no such file, it cannot be opened, is no regular file, or is too large.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise UserError(f"{noun} {path} cannot be read: it is {kind}; name a file")
        if status.st_size > limit:
            raise UserError(
                f"{noun} {path} cannot be read: it has {status.st_size} bytes, and no such file has more than {limit}. "
                "Is it another file?"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"{noun} {path} cannot be read: {reason}") from error


def read_text(path: str | Path, noun: str, limit: int = LIMIT) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Args:
        noun: as `read_bytes`.
        limit: as `read_bytes`.

    Raises:
        UserError: as `read_bytes`; or the content is in another encoding, or binary.
    """
    content = read_bytes(path, noun, limit)
    for mark, name in _MARKS:
        if content.startswith(mark):
            raise UserError(f"{noun} {path} is {name} text, as Windows tools write it: save it as UTF-8")
    if b"\0" in content:
        raise UserError(f"{noun} {path} holds NUL bytes: it is binary, or UTF-16 text. A text file in UTF-8 is needed")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{noun} {path} is not UTF-8 text (byte 0x{content[error.start]:02x} in line {line}): save it as UTF-8"
        ) from error


def read_lines(path: str | Path, noun: str) -> list[str]:
    """The lines of a UTF-8 file, with line ends of any system; a last empty line does not count.

    Raises:
        UserError: as `read_text`.
    """
    lines = _LINE_END.split(read_text(path, noun))
    return lines if lines[-1] else lines[:-1]


def read_json(path: str | Path, noun: str, limit: int = LIMIT) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: as `read_text`; or it is no JSON.
    """
    try:
        return json.loads(read_text(path, noun, limit))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{noun} {path} is no JSON, or damaged: {first_line(error)}") from error


def read_json_object(path: str | Path, noun: str, limit: int = LIMIT) -> dict[str, Any]:
    """The content of a JSON file that holds names and values.

    Raises:
        UserError: as `read_json`; or it holds something else.
    """
    content = read_json(path, noun, limit)
    if not isinstance(content, dict):
        raise UserError(f"{noun} {path} holds {type(content).__name__}, not names and values. Is it another file?")
    return content
