"""The method that a configuration belongs to: the entry ``method`` of its YAML, compared before anything else.

A configuration's class has the same name in its attribute ``method``. A YAML without the entry suits every class, as
runs of earlier versions have none.
"""

import re
from pathlib import Path

from common.run.errors import UserError
from common.run.files import ROOT
from common.run.folder import CONFIG_FILE, EXPERIMENT_DIR

ENTRY = "method"
EXPERIMENT = "experiment"  # entry of a run's YAML: the name of the YAML that it began with
CONFIG_DIR = ROOT / "configs"

# The call with which a script starts: experiment without --exp, and kind, which a training does not name.
_START = re.compile(r'\bstart\(\s*__doc__, \w+, "([\w.-]+)"(?:, ([A-Z]+))?')


def method_of(path: Path) -> str:
    """The method of a YAML; empty if it has no such entry or is unreadable."""
    return _entry(path, ENTRY)


def experiment_of(path: Path) -> str:
    """The experiment of a run's YAML, by its name; empty if it has no such entry or is unreadable."""
    return _entry(path, EXPERIMENT)


def _entry(path: Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = re.search(rf"^{name}:[ \t]*(\S.*?)[ \t]*(?:#.*)?$", text, re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1].strip("\"'") if found else ""


def check_method(path: Path, found: object, wanted: str, kind: str = "") -> None:
    """Compares the entry of a YAML with the method of a script.

    Args:
        path: the YAML, for the message.
        found: its entry; None if it has none.
        wanted: the script's method; empty: any.
        kind: the script's kind, see `common.run.script.Usage`; the message names the method's script of that kind.

    Raises:
        UserError: they differ.
    """
    if not wanted or found is None or found == wanted:
        return
    scripts = scripts_of(str(found))
    there = [script for script, other in scripts.items() if other == kind] or list(scripts)
    use = f": use {' or '.join(there)}" if there else ""
    is_run = path.name == CONFIG_FILE and path.parent.parent == EXPERIMENT_DIR
    place = f"{path.parent} is a run" if is_run else f"{path} is an experiment"
    other = "give another --name" if is_run else "name another experiment with --exp"
    raise UserError(f"{place} of {found}{use}. This script is of {wanted}; for it, {other}")


def scripts_of(method: str) -> dict[str, str]:
    """The scripts of a method with their kinds, found by the calls of `common.run.script.start` in their texts."""
    found = {}
    for path in sorted([*ROOT.glob("methods/*/*.py"), *ROOT.glob("scripts/*.py")]):
        match = _START.search(path.read_text(encoding="utf-8"))
        if match and method_of(CONFIG_DIR / f"{match[1]}.yaml") == method:
            found[str(path.relative_to(ROOT))] = (match[2] or "TRAINING").lower()
    return found
