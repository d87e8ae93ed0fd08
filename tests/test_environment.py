"""Packages: pins, conda environment and declared ranges agree. Layout: order and content of the project's packages."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from common.pipeline.builders import KINDS
from common.run.files import ROOT

# Where the name of the import differs from the name of the package.
IMPORTS = {
    "pillow": "PIL", "opencv-python-headless": "cv2", "pydensecrf2": "pydensecrf", "pyyaml": "yaml",
    "pytest-xdist": "xdist", "scikit-image": "skimage",
}  # fmt: skip


def pins(*files: str) -> list[str]:
    lines = [line.strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


ALL_PINS = pins("requirements.txt", "requirements-crf.txt")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yaml").read_text())


def test_conda_installs_the_same_pins_and_the_project() -> None:
    *of_conda, of_pip = conda()["dependencies"]
    assert of_pip["pip"] == [*ALL_PINS, "-e ."]
    version = next(entry.removeprefix("python=") for entry in of_conda if entry.startswith("python="))
    assert re.fullmatch(r"3\.(11|12)", version)
    assert {"c-compiler", "cxx-compiler"} <= set(of_conda)  # for pydensecrf2


def test_every_pin_is_exact_and_within_the_declared_range() -> None:
    extras = project()["optional-dependencies"]
    declared = [Requirement(text) for text in [*project()["dependencies"], *extras["dev"], *extras["crf"]]]
    pinned = {}
    for text in ALL_PINS:
        name, version = text.split("==")
        pinned[name] = version
    assert sorted(pinned) == sorted(requirement.name for requirement in declared)
    for requirement in declared:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_what_is_compiled_is_apart() -> None:
    """Neither ``pip install .`` nor the main requirements need a compiler."""
    assert pins("requirements-crf.txt") == ["pydensecrf2==1.1"]
    assert not any("pydensecrf" in text for text in [*project()["dependencies"], *pins("requirements.txt")])


@pytest.mark.parametrize("folder", ["common", "methods", "scripts", "tests", "."])
def test_only_declared_packages_are_imported(folder: str) -> None:
    extras = project()["optional-dependencies"]
    names = {Requirement(text).name for text in [*project()["dependencies"], *extras["crf"], *extras["sam"]]}
    names.add("huggingface_hub")  # comes with timm
    if folder == "tests":
        names |= {Requirement(text).name for text in [*extras["dev"], *extras["browser"]]}
        names.add("packaging")  # comes with pytest
    allowed = {*(IMPORTS.get(name, name) for name in names), "common", "methods", "tests", *sys.stdlib_module_names}
    files = (ROOT / folder).glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py")
    foreign = {(path.relative_to(ROOT), name) for path in files for name in imported(path) if name not in allowed}
    assert not foreign


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


def named_methods(path: Path) -> set[str]:
    """The methods whose modules or files a file's texts name, docstrings among them."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    values = (node.value for node in nodes if isinstance(node, ast.Constant))
    return {name for text in values if isinstance(text, str) for name in re.findall(r"\bmethods[./](\w+)", text)}


def test_arrows_point_one_way() -> None:
    """scripts → methods → common; no method imports another, or names its files, and one module of common does."""
    for path in (ROOT / "common").rglob("*.py"):
        assert "methods" not in imported(path), f"{path}: common knows no method"
        assert path.name == "builders.py" or not named_methods(path), f"{path}: builders.py alone strings methods"
    for path in (ROOT / "methods").rglob("*.py"):
        own = path.relative_to(ROOT / "methods").parts[0]
        used = set(re.findall(r"^\s*(?:from|import) methods\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert used <= {own}, f"{path}: methods share through common"
        assert named_methods(path) <= {own}, f"{path}: other methods' scripts are named in common/pipeline/builders.py"


@pytest.mark.parametrize(
    "text",
    ['"""Then methods/irn/x.py."""', 'run("methods/irn/x.py")', 'f"{1} methods.irn.model"', 'x = {"methods/irn": 1}'],
)
def test_names_of_methods_in_texts_are_found(text: str, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"from methods.psa import model  # methods/psa\n{text}\n")
    assert named_methods(file) == {"irn"}


# Packages of common in the order of a run; those of one entry stand side by side and do not import each other.
ORDER = (
    ("tensors", "run"),
    ("data",),
    ("visual", "crf"),
    ("nets",),
    ("score",),
    ("seeds",),
    ("train", "masks"),
    ("pipeline",),
    ("predict",),
    ("report", "fuzz"),
)
PACKAGES = sorted((ROOT / "common").rglob("__init__.py"))
# From the rule of two users; of common.predict the second ones are programs of the repository's users.
EXCEPTED = ("common.run.", "common.data.prepare.", "common.predict.", "common.report.", "common.fuzz.")


def module_name(path: Path) -> str:
    """The dotted name of a file of the repository; a package has that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_files(*folders: str) -> dict[str, Path]:
    """Files by the names of their modules."""
    return {module_name(path): path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


def imported_modules(path: Path, modules: Iterable[str]) -> set[str]:
    """Which of some modules a file imports, in functions and for type checking alone as well."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & set(modules)


def station(module: str) -> int:
    """The place of a module of common in the order of packages."""
    package = module.split(".")[1]
    return next(place for place, packages in enumerate(ORDER) if package in packages)


def upward_imports(module: str, used: Iterable[str]) -> set[str]:
    """Those of the modules that a module of common must not import: of later packages, or of one beside its own."""
    own = module.split(".")[1]
    return {name for name in used if name.split(".")[1] != own and station(name) >= station(module)}


def users(module: str, imports: dict[str, set[str]]) -> set[str]:
    """The methods, scripts and other entry points that use a module, directly or through other modules of common."""
    found = set()
    seen = {module}
    waiting = [module]
    while waiting:
        used = waiting.pop()
        for other in {name for name, names in imports.items() if used in names} - seen:
            seen.add(other)
            if other.startswith("common."):
                waiting.append(other)
            else:
                found.add(".".join(other.split(".")[:2]))
    return found


def test_packages_come_in_the_order_of_a_run() -> None:
    modules = module_files("common")
    del modules["common"]
    for module, path in modules.items():
        wrong = upward_imports(module, imported_modules(path, modules))
        assert not wrong, f"{module} imports {wrong}, which come after it in a run"
        if not module.startswith(("common.data.prepare", "common.fuzz")):
            prepare = {name for name in modules if name.startswith("common.data.prepare")}
            assert not imported_modules(path, prepare), f"{module}: scripts alone prepare data"


@pytest.mark.parametrize(
    ("module", "used", "is_upward"),
    [
        ("common.data.masks", "common.crf.dense", True),
        ("common.train.trainer", "common.masks.options", True),
        ("common.masks.network", "common.train.course", True),
        ("common.tensors", "common.run.errors", True),
        ("common.crf.dense", "common.data.seeds", False),
        ("common.pipeline.stages", "common.masks.options", False),
        ("common.data.whole", "common.data.loader", False),
    ],
)
def test_upward_imports_are_found(module: str, used: str, is_upward: bool) -> None:
    assert bool(upward_imports(module, [used])) == is_upward


def test_imports_in_functions_and_for_types_are_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport common.a.b\nif TYPE_CHECKING:\n    from common.c import d\n"
        "def use():\n    from common.e import Name\n    from common import f\n"
    )
    known = {"common.a.b", "common.c.d", "common.e", "common.f", "common.g"}
    assert imported_modules(file, known) == known - {"common.g"}


def test_common_holds_what_two_use() -> None:
    """A module that one method or script alone uses lies beside its user, those of `EXCEPTED` aside."""
    modules = module_files("common", "methods", "scripts") | {"evaluation": ROOT / "evaluation.py"}
    imports = {module: imported_modules(path, modules) for module, path in modules.items()}
    for module, path in modules.items():
        if module.startswith("common.") and path.name != "__init__.py" and not module.startswith(EXCEPTED):
            found = users(module, imports)
            assert len(found) >= 2, f"{module} is used by {sorted(found) or 'nothing'} alone: it belongs there"


def test_users_are_found_through_common() -> None:
    imports = {
        "methods.a.x": {"common.p.top"}, "methods.a.y": {"common.p.low"}, "common.p.top": {"common.p.low"},
        "methods.b.x": {"common.q.other"}, "common.q.other": {"common.p.top"}, "scripts.s": {"common.q.other"},
    }  # fmt: skip
    assert users("common.p.low", imports) == {"methods.a", "methods.b", "scripts.s"}
    assert users("common.q.other", imports) == {"methods.b", "scripts.s"}
    assert users("common.r", imports) == set()


def test_few_modules_lie_outside_the_packages() -> None:
    assert len([path for path in (ROOT / "common").glob("*.py") if path.name != "__init__.py"]) <= 3


@pytest.mark.parametrize("path", PACKAGES, ids=module_name)
def test_packages_say_what_they_hold(path: Path) -> None:
    """What is here (all modules, and no others), who calls it, what is not here."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary, here, called_by, not_here = re.split(r"\n\n(?:Here\b|Called by: |Not here: )", text)
    assert summary
    assert called_by
    assert not_here
    inside = {file.stem for file in path.parent.glob("*.py")} | {
        file.parent.name for file in path.parent.glob("*/*.py")
    }
    listed = set(re.findall(r"^    (\w+) {2,}\S", here, re.MULTILINE))
    if path.parent.name == "common":
        listed |= set(re.findall(r"`(tensors|visual)` \(", here))
    assert listed == inside - {"__init__"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_pages_show_the_map(page: str) -> None:
    """All packages of common, in their order, in the same words on both pages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.findall(r"^      (\w+)/ {2,}(\S.*)$", text, re.MULTILINE)
    assert [name for name, _ in rows] == [
        name for names in ORDER for name in names if name not in ("tensors", "visual")
    ]
    assert "data/prepare/" in dict(rows)["data"]
    assert "tensors.py visual.py" in text
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"      {name}/" in contributing and words in contributing for name, words in rows)


def test_pipelines_name_what_there_is() -> None:
    """The methods that builders.py names as data: scripts, configurations and file names."""
    for kind in KINDS.values():
        assert all((ROOT / script).is_file() for script in (kind.masks, kind.prepare, kind.train) if script)
        assert isinstance(kind.config_class(), type)
        assert bool(kind.weights) == bool(kind.train)
