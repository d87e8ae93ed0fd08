"""Downloads public archives, with resumption and checksum, and unpacks the wanted files."""

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from common.run.errors import UserError, first_line
from common.run.files import atomic_write
from common.run.progress import ProgressBar, progress

BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A file that a data set's owners publish."""

    url: str
    md5: str
    size: str  # as text

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def obtain(
    archives: Sequence[Archive], folder: Path, given: Sequence[Path] = (), download: bool = True, verify: bool = True
) -> list[Path]:
    """Paths of complete, verified archives: given by the user, in ``folder`` already, or downloaded into it.

    Args:
        given: Files fetched by hand, recognised by their names.
        download: Whether the network may be used.
        verify: Whether given files must have the published checksum.

    Raises:
        UserError: a checksum is wrong, or an archive cannot be obtained; the message then names file and folder.
    """
    by_name = {path.name: path for path in given}
    found: dict[str, Path] = {}
    for archive in archives:
        path = by_name.get(archive.name, folder / archive.name)
        if path.is_file():
            if verify:
                _verify(path, archive)
            found[archive.name] = path
        elif archive.name in by_name:
            raise UserError(f"no archive at {path}")
    for archive in archives:
        if archive.name in found:
            continue
        missing = [other for other in archives if other.name not in found]
        if not download:
            raise UserError(_by_hand(missing, folder, "the network is not used (--no-download)"))
        try:
            found[archive.name] = _download(archive, folder)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(_by_hand(missing, folder, f"{archive.url} cannot be downloaded ({error})")) from error
    return [found[archive.name] for archive in archives]


def _by_hand(missing: Sequence[Archive], folder: Path, reason: str) -> str:
    lines = [f"\n  {archive.url}\n    ({archive.size}, MD5 {archive.md5})" for archive in missing]
    return (
        f"{reason}. Fetch by hand:{''.join(lines)}\nput it into {folder}/ and run this command again, "
        f"or say where it is: --archive /path/to/{missing[0].name}"
    )


def _download(archive: Archive, folder: Path) -> Path:
    """Downloads into ``<name>.part``, after the end of an earlier attempt; renames it when the checksum is right."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            start = start if response.status == 206 else 0  # 200: the server sends it from the beginning
            rest = int(response.headers.get("Content-Length") or 0)
            with part.open("ab" if start else "wb") as file:
                with ProgressBar(archive.name, start + rest if rest else None, start, unit="B") as bar:
                    for block in iter(lambda: response.read(BLOCK), b""):
                        file.write(block)
                        bar.advance(len(block))
        if rest and part.stat().st_size < start + rest:
            raise UserError(f"the download of {archive.url} broke off; run the command again and it goes on from there")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": all of it is here
            raise
    try:
        _verify(part, archive)
    except UserError:
        part.unlink()
        raise
    return part.rename(folder / archive.name)


def _verify(path: Path, archive: Archive) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, ProgressBar(f"checksum of {path.name}", path.stat().st_size, unit="B") as bar:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
            bar.advance(len(block))
    if digest.hexdigest() != archive.md5:
        raise UserError(
            f"{path} has the MD5 {digest.hexdigest()}, not {archive.md5} as published: it is incomplete or another "
            f"file. Fetch {archive.url} again; --skip-checksum takes it as it is"
        )


def unpack(path: Path, root: Path, wanted: Callable[[str], str | None]) -> int:
    """Unpacks files of a tar or zip archive, each wholly or not at all; existing files are kept.

    Args:
        wanted: The path under ``root`` for a member's name, or None to leave it out.

    Returns:
        The number of files written.

    Raises:
        UserError: the archive is damaged, or a member would lie outside ``root``.
    """
    written = 0
    try:
        for name, stream in progress(_members(path, root, wanted), f"unpacking {path.name}"):
            with atomic_write(root / name, durable=False) as file:
                shutil.copyfileobj(stream, file)
            written += 1
    except UserError:
        raise
    except Exception as error:  # tarfile, zipfile and their decompressors raise nearly any for a damaged archive
        raise UserError(
            f"the archive {path} cannot be unpacked ({type(error).__name__}: {first_line(error)}). Is it complete? "
            "Fetch it again"
        ) from error
    return written


def _members(path: Path, root: Path, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, IO[bytes]]]:
    """(path under root, content) of the wanted files that do not exist yet."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = None if info.is_dir() else wanted(info.filename)
                if name and not (root / _inside(name, path)).exists():
                    with archive.open(info) as stream:
                        yield name, stream
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            name = wanted(member.name) if member.isfile() else None
            if not name:
                continue
            member = tarfile.data_filter(member.replace(name=name, deep=False), str(root))
            if not (root / _inside(name, path)).exists():
                content = archive.extractfile(member)
                if content is not None:  # a regular file always has some
                    yield name, content


def _inside(name: str, archive: Path) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"the archive {archive} has a member {name!r} that leads out of its folder; unpacking stopped")
    return name
