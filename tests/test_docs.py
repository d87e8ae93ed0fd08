"""Every file, module and name that a page, a YAML's comment or a docstring mentions exists."""

import ast
import functools
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.run.config import leaves
from common.run.files import ROOT
from tests.test_config import CLASSES
from tests.toy_method.config import ToyConfig

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
YAMLS = [*ROOT.glob("configs/*.yaml"), ROOT / "environment.yaml"]
PACKAGES = ("common", "methods", "scripts", "tests")
MODULES = [*(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")), *ROOT.glob("*.py")]
SHELL = [*ROOT.glob("scripts/*.sh")]
TEXTS = [*PAGES, *YAMLS, *MODULES, *SHELL]

FOLDERS = "common|methods|scripts|tests|docs|configs"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*(?:\{{[\w,]+\}}[\w./*-]*)*([<$]?)")
DOTTED = re.compile(r"(?<![\w/.-])(?:common|methods|tests)(?:\.\w+)+")
# In backticks on a page: a file without its folder; a name within something; a call's name.
BARE_FILE = re.compile(r"`([\w-]+\.(?:py|sh|yaml))`")
SETTING = re.compile(r"(?<![\w./-])([a-z]+(?:\.[a-z]\w*)+)=")
MEMBER = re.compile(r"`(\w+(?:\.\w+)+)`")

OF_A_RUN = {"config.yaml"}
FILE_ENDS = r"\.(py|sh|pth|pt|json|jsonl|csv|txt|npz|npy|md|yaml|toml|caffemodel|safetensors|tar|tgz|zip|png|jpg|xml)$"
FOREIGN = {  # a mistake as an example, members of other libraries, names in the references and their files
    "train.epoch", "torch.load", "torch.compile", "torch.distributed.launch", "classifier.weight",
    "MODEL.CAM_THR", "x0.5", "x0.75",
}  # fmt: skip


def words_of(path: Path) -> str:
    """A file's texts that a reader reads: a page, the comments of a YAML, the docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return "\n".join(re.findall(r"#.*", text))
    if path.suffix == ".py":
        return "\n".join(modules()[path].docstrings)
    if path.name == "papers_commands.md":  # its first column names files of other repositories
        return re.sub(r"^\| `[^`]*` \|", "|", text, flags=re.MULTILINE)
    return text


def alternatives(pattern: str) -> list[str]:
    """``a_{b,c}.yaml`` as ``a_b.yaml`` and ``a_c.yaml``."""
    found = re.search(r"\{([\w,]+)\}", pattern)
    if not found:
        return [pattern]
    return [one for word in found[1].split(",") for one in alternatives(pattern.replace(found[0], word, 1))]


def missing_paths(text: str) -> list[str]:
    """The paths in a text that lead to no file; ``<method>`` or ``${method}`` ends the part that counts."""
    missing = []
    for match in PATH.finditer(text):
        path = match[0].rstrip("<$")
        path = path.rpartition("/")[0] if match[1] else path.rstrip(".-/")
        missing += [one for one in alternatives(path) if not any(ROOT.glob(one))]
    return missing


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        if place.is_dir() or place.with_suffix(".py").is_file():
            break
    else:
        return False
    if count == len(parts):
        return True
    found = importlib.import_module(".".join(parts[:count]))
    for part in parts[count:]:
        if not hasattr(found, part):
            return part in getattr(found, "__annotations__", {})
        found = getattr(found, part)
    return True


class Module:
    """What a module says, found in one walk: its docstrings, its classes, and its other texts."""

    def __init__(self, path: Path) -> None:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.names = set(defined(tree))
        self.docstrings: list[str] = []
        self.classes: list[ast.ClassDef] = []
        self.texts: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.add(node.value)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                self.docstrings.append(ast.get_docstring(node) or "")
            if isinstance(node, ast.ClassDef):
                self.classes.append(node)


@functools.cache
def modules() -> dict[Path, Module]:
    """All modules of the project, each read once."""
    return {path: Module(path) for path in MODULES}


@functools.cache
def members() -> dict[str, set[str]]:
    """The names in each class and each module of the project; those of a class are its own alone."""
    found: dict[str, set[str]] = {}
    for path, module in modules().items():
        found.setdefault(path.stem, set()).update(module.names)
        for node in module.classes:
            found.setdefault(node.name, set()).update(defined(node))
    return found


@functools.cache
def bases() -> dict[str, set[str]]:
    """Names of the classes that the project's classes derive from."""
    found: dict[str, set[str]] = {}
    for node in (node for module in modules().values() for node in module.classes):
        found.setdefault(node.name, set()).update(getattr(base, "id", "") for base in node.bases)
    return found


def defined(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    """What a module or a class defines at its top, and the attributes that methods give to ``self``."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield child.name
        for part in ast.walk(child) if isinstance(node, ast.ClassDef) else [child]:
            targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
            for target in targets:
                for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                    yield getattr(name, "attr", getattr(name, "id", ""))


def is_member(owner: str, name: str) -> bool:
    """Whether a class or module, or a class that it derives from, has a member of this name."""
    seen: set[str] = set()
    found = {owner}
    while found - seen:
        place = (found - seen).pop()
        seen.add(place)
        if name in members().get(place, set()):
            return True
        found |= bases().get(place, set())
    return False


@functools.cache
def keys() -> set[str]:
    """All configuration keys, and the sections that they are in."""
    found = {leaf.key for cls in (*CLASSES.values(), ToyConfig) for leaf in leaves(cls())}
    return found | {key.rpartition(".")[0] for key in found}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_text_mentions_exists(path: Path) -> None:
    text = words_of(path)
    assert not missing_paths(text)
    assert not [name for name in sorted(set(DOTTED.findall(text))) if not exists(name.rstrip("."))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_on_a_page_exist(page: Path) -> None:
    """Files named without their folder; members of classes and modules; configuration keys."""
    text = page.read_text(encoding="utf-8")
    names = {path.name for path in [*MODULES, *SHELL, *YAMLS, *ROOT.glob("*.toml")]} | OF_A_RUN
    wrong: list[str] = sorted(set(BARE_FILE.findall(text)) - names)
    for name in sorted(set(MEMBER.findall(text)) - FOREIGN):
        owner, _, rest = name.partition(".")
        is_class = owner in members() and is_member(owner, rest.split(".")[0])
        if not (is_class or name in keys() or DOTTED.fullmatch(name) or re.search(FILE_ENDS, name)):
            wrong.append(name)
    assert not wrong
    assert not set(SETTING.findall(text)) - keys() - FOREIGN
    assert not names_here(text) - {name for own in members().values() for name in own} - texts()


@functools.cache
def texts() -> set[str]:
    """All texts in the project's code: the names of loss terms are among them."""
    return {text for path, module in modules().items() if "tests" not in path.parts for text in module.texts}


def names_here(text: str) -> set[str]:
    """The names in the column ``here`` of a page's tables of symbols."""
    found: set[str] = set()
    is_table = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        is_table = line.startswith("|") and (is_table or "here" in cells[2:3])
        if is_table:
            found |= set(re.findall(r"`(_?[A-Za-z]\w+)`", cells[2]))
    return found


def test_what_does_not_exist_is_found() -> None:
    """Of each kind one; and what exists beside it."""
    assert missing_paths("See methods/cti/x.py, docs/<name>.md, common/{run,x}/script.py or scripts/demo*.sh.") == [
        "methods/cti/x.py", "common/x/script.py",
    ]  # fmt: skip
    names = "common.run", "common.run.script.start", "common.run.x", "common.run.script.x", "methods.cti.model.CTI.x"
    assert [exists(name) for name in names] == [True, True, False, False, False]
    assert is_member("CTI", "class_tokens") and is_member("CTI", "patch_embed") and not is_member("CTI", "x")
    assert names_here("| paper | here |\n|---|---|\n| `a` | `abc`, `D.e` |\n\n| x | `nothing` |") == {"abc"}
