"""One writer at a time in a run folder: a lock that says who holds it, and ends with its process.

The lock is the file ``.lock`` in the folder, locked by the kernel (flock) as long as the process lives and deleted at
its end. A file that a killed process leaves is not locked: it is stale, and taken over. A pipeline hands its lock on to
the scripts that it starts.
"""

import atexit
import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO, Any

from common.run.errors import UserError
from common.run.files import is_alive

LOCK_FILE = ".lock"
HANDED_ON = "RUN_LOCKS"  # environment variable: folders whose locks the parent process holds

_held: dict[Path, tuple[Path, IO[str]]] = {}  # by real folder and name: the lock's place and open file


def lock(folder: Path, name: str = LOCK_FILE, elsewhere: str = "another --name") -> None:
    """Locks an existing folder for this process, until `unlock_all` or the process's end.

    Args:
        name: of the lock's file, for writers of files that no other writes.
        elsewhere: argument that names another folder, for the message.

    Raises:
        UserError: another process holds it; it is named.
    """
    key = folder.resolve() / name
    if key in _held or str(key) in os.environ.get(HANDED_ON, "").split(os.pathsep):
        return
    path = folder / name
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            file.close()
            raise UserError(_in_use(folder, holder, elsewhere)) from None
        except OSError:  # a file system without locks: the record alone tells
            holder = _holder(file)
            if _lives(holder):
                file.close()
                raise UserError(_in_use(folder, holder, elsewhere)) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # its holder has deleted it since
    file.truncate(0)
    record = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    json.dump({**record, "command": Path(sys.argv[0]).name}, file)
    file.flush()
    _held[key] = path, file


def hand_on() -> dict[str, str]:
    """The environment of a script that may write where this process holds locks."""
    inherited = [place for place in os.environ.get(HANDED_ON, "").split(os.pathsep) if place]
    return {**os.environ, HANDED_ON: os.pathsep.join([*inherited, *map(str, _held)])}


@atexit.register
def unlock_all() -> None:
    """Releases all locks of this process; at its end by itself."""
    for path, file in _held.values():
        with contextlib.suppress(OSError):  # the folder is gone
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                path.unlink()
        file.close()
    _held.clear()


def _holder(file: IO[str]) -> dict[str, Any]:
    """The record of the process that holds a lock; empty while it is being written."""
    file.seek(0)
    try:
        content = json.loads(file.read())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _lives(holder: dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return bool(holder)  # of another machine: it cannot be asked
    return is_alive(holder["pid"])


def _in_use(folder: Path, holder: dict[str, Any], elsewhere: str) -> str:
    who = (
        f"process {holder.get('pid')} on {holder.get('host')} ({holder.get('command')}) since {holder.get('since')}"
        if holder
        else "another process"
    )
    return f"the run folder {folder} is in use by {who}. Wait for its end, or stop it, or choose {elsewhere}"
