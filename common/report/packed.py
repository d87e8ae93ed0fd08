"""Bytes of pictures within a page, at hardly more than their own size.

Base64 adds a third. A page in windows-1252 has a character for every byte; four of them cannot stand in a script
element as they are: null, which is replaced, a carriage return, which becomes a line feed, "<", which can end the
element, and "=", which announces the other three. They are written as "=" and a letter.
"""

import re

ENCODING = "windows-1252"  # of the page, by the rules of browsers: without a gap, unlike Python's codec of that name
ESCAPE = ord("=")
SHIFT = 64  # between an escaped byte and its letter
FORBIDDEN = re.compile(rb"[\x00\r<=]")


class Packed:
    """Collects the bytes of all pictures of a page."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, content: object) -> list[int]:
        """Takes in some bytes; returns their place, the first character and the number of characters.

        Usable as the ``default`` of `json.dumps`.

        Raises:
            TypeError: it is anything but bytes.
        """
        if not isinstance(content, bytes):
            raise TypeError(f"{type(content).__name__} has no place in a page")
        part = FORBIDDEN.sub(lambda match: bytes([ESCAPE, match[0][0] + SHIFT]), content)
        place = [self._length, len(part)]
        self._parts.append(part)
        self._length += len(part)
        return place

    def content(self) -> bytes:
        """All of them."""
        return b"".join(self._parts)


def unpacked(content: bytes, place: list[int]) -> bytes:
    """The bytes at a place."""
    part = content[place[0] : place[0] + place[1]]
    return re.sub(rb"=(.)", lambda match: bytes([match[1][0] - SHIFT]), part)
