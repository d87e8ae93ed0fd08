"""The pins, the conda environment and the declared ranges say the same; nothing else is imported."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from common.run.files import ROOT

# Where the name of the import differs from the name of the package.
IMPORTS = {
    "pillow": "PIL", "opencv-python-headless": "cv2", "pydensecrf2": "pydensecrf", "pyyaml": "yaml",
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
    names = {Requirement(text).name for text in [*project()["dependencies"], *extras["crf"]]}
    names.add("huggingface_hub")  # comes with timm
    if folder == "tests":
        names |= {Requirement(text).name for text in extras["dev"]}
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


# Packages of common from the ground up; those in one row import none of each other.
LAYERS = (
    {"run", "tensors"}, {"data"}, {"crf"}, {"nets", "visual"}, {"score"}, {"seeds"}, {"train", "masks"}, {"pipeline"},
)  # fmt: skip
ONE_USER = {"common.masks.crf_alone"}  # a stage without a method's folder: scripts/crf_masks.py


def modules(*folders: str) -> dict[str, Path]:
    """Modules below folders by dotted name, packages' own files aside."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path.stem != "__init__"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def module_imports(path: Path) -> set[str]:
    """Modules of this project that a file imports anywhere, for annotations too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("common", "methods")):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_packages_of_common_import_only_lower_ones() -> None:
    """The folders spell the flow of a run."""
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for name, path in modules("common").items():
        own = name.split(".")[1]
        for other in {found.split(".")[1] for found in module_imports(path) if found.startswith("common.")} - {own}:
            assert level[other] < level[own], f"{path} imports common.{other}"


def test_few_modules_stand_directly_in_common() -> None:
    assert len(list((ROOT / "common").glob("*.py"))) <= 1 + 3  # __init__.py and three


def test_what_one_method_uses_is_no_part_of_common() -> None:
    """A module is used by a method or script that imports it, directly or through others."""
    every = modules("common", "methods", "scripts") | {"evaluation": ROOT / "evaluation.py"}
    imports = {name: module_imports(path) & every.keys() for name, path in every.items()}
    users: dict[str, set[str]] = {name: set() for name in every}
    for name in every:
        user = ".".join(name.split(".")[:2]) if name.startswith("methods.") else name
        waiting = list(imports[name]) if not name.startswith("common.") else []
        seen: set[str] = set()
        while waiting:
            used = waiting.pop()
            if used not in seen:
                seen.add(used)
                users[used].add(user)
                waiting += imports[used]
    exempt = ("common.run.", "common.data.prepare.")
    lonely = {name for name in modules("common") if len(users[name]) < 2 and not name.startswith(exempt)}
    assert lonely == ONE_USER


PACKAGES = sorted(path.parent for path in (ROOT / "common").rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_package_says_what_is_here(package: Path) -> None:
    """All modules, who calls them, and what is not here; README and CONTRIBUTING show it on the map."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    named = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert {name for name in named if f"`{name}`" not in text} == set()
    assert "not here" in text.lower() and "call" in text.lower()
    for page in ("README.md", "CONTRIBUTING.md"):
        place = package.relative_to(ROOT).as_posix()
        assert f"{place}/" in (ROOT / page).read_text(encoding="utf-8"), f"{page} does not show {place}/"
