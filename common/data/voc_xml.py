"""Names of the objects in VOC annotations, ``<annotation><object><name>...``.

Namespaces do not matter; names of parts, owners and attributes do not count. The encoding is the declared one, and
entities are refused: a few hundred bytes of them can stand for gigabytes.
"""

import codecs
import re
from pathlib import Path
from xml.parsers import expat

from common.run.errors import UserError
from common.run.text import MEBIBYTE, read_bytes

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")
_NO_CHARSETS = ("punycode", "idna", "unicode_escape", "raw_unicode_escape")  # Python's, slow or no text encodings
_OBJECT_NAME = ["object", "name"]  # below the root
_SEPARATOR = " "  # between namespace and name


def object_names(path: Path) -> list[str]:
    """The names of an annotation's objects, stripped, in their order.

    Raises:
        UserError: the file is missing, damaged, in an unknown encoding, or defines entities.
    """
    content = read_bytes(path, "the annotation", 16 * MEBIBYTE)
    reader = _ObjectReader()
    try:
        reader.parse(_decoded(content))
    except expat.ExpatError as error:
        raise UserError(f"the annotation {path} is damaged: {error}. Get it again") from error
    except LookupError as error:
        raise UserError(
            f"the annotation {path} names an encoding that is unknown ({error}): save it as UTF-8"
        ) from error
    except UnicodeError as error:
        raise UserError(
            f"the annotation {path} is not in the encoding that it names, or UTF-8: save it as UTF-8"
        ) from error
    except ValueError as error:
        raise UserError(f"the annotation {path} is not read: {error}") from error
    return reader.names


def _decoded(content: bytes) -> str:
    """The text, by its byte order mark, else by the encoding that the first line names, else as UTF-8.

    Raises:
        LookupError: there is no such encoding.
        UnicodeError: the text is in another one.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    declared = _DECLARED.match(content[:1024])
    name = codecs.lookup(declared[1].decode()).name if declared else "utf-8"
    if name in _NO_CHARSETS:
        raise LookupError(name)
    return content.decode("utf-8-sig" if name == "utf-8" else name)


class _ObjectReader:
    """Collects the names while expat reads."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._path: list[str] = []
        self._text: list[str] = []

    def parse(self, text: str) -> None:
        """Reads a whole document."""
        parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.EntityDeclHandler = self._refuse
        parser.Parse(text, True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name.rpartition(_SEPARATOR)[2])
        if len(self._path) == 3:
            self._text.clear()

    def _end(self, name: str) -> None:
        if self._path[1:] == _OBJECT_NAME:
            self.names.append("".join(self._text).strip())
        self._path.pop()

    def _refuse(self, *unused: object) -> None:
        raise ValueError("it defines entities, which no annotation needs; write their texts in their places")
