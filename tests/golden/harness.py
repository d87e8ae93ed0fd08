"""Reads a folder of reference numbers: builds inputs by the manifest's recipes, compares what was computed.

A folder holds ``manifest.json`` and the ``.npz`` files it names. Nothing here knows file names: a case is run by the
function registered for its (method, kind), and everything that varies comes from the manifest entry or the ``.npz``.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from tests.golden.weights import fill, image_batch

Results = dict[tuple[str, Any], Any]  # (role, case) -> array or tensor
Network = TypeVar("Network", bound=nn.Module)
RUNNERS: dict[tuple[str, str], Callable[["Case"], Results]] = {}


def runner(method: str, kind: str) -> Callable:
    """Registers a function that computes the outputs of one kind of case, by (role, case)."""

    def register(function: Callable[["Case"], Results]) -> Callable[["Case"], Results]:
        RUNNERS[method, kind] = function
        return function

    return register


class NoDraws(TorchFunctionMode):
    """Parameters are zero, which takes no time: they get their values later."""

    drawing = frozenset(
        {Tensor.uniform_, Tensor.normal_, init.uniform_, init.normal_, init.kaiming_uniform_, init.kaiming_normal_}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.drawing:
            return (args[0] if args else kwargs["tensor"]).detach().zero_()
        return func(*args, **(kwargs or {}))


def built(build: Callable[[], Network], seed: int, reference_name: Callable[[str], str] = str) -> Network:
    """A network with the weights of a seed, which belong to the reference's names of its parameters."""
    with NoDraws():
        network = build()
    return fill(network, seed, reference_name)


@dataclass
class Case:
    """One golden file with its manifest entry."""

    folder: Path
    file: str
    entry: dict[str, Any]

    @cached_property
    def stored(self) -> dict[str, np.ndarray]:
        """The arrays of the file."""
        with np.load(self.folder / self.file, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}

    @property
    def params(self) -> dict[str, Any]:
        """Everything that is neither model nor input."""
        return self.entry["params"]

    @property
    def model(self) -> dict[str, Any]:
        """What to build."""
        return self.entry["model"]

    def input(self, name: str) -> Any:
        """An input, made by its recipe."""
        return self.make(self.entry["inputs"][name])

    def make(self, recipe: Any) -> Any:
        """A tensor, array, value or list by a recipe of the manifest.

        Raises:
            KeyError: the recipe is of no known form.
        """
        if recipe is None or isinstance(recipe, int | float | str):
            return recipe
        if isinstance(recipe, list):
            return [self.make(part) for part in recipe]
        if "image_batch" in recipe:
            x = image_batch(*recipe["image_batch"], seed=recipe["seed"])
            return _evaluate(recipe["then"], x=x) if "then" in recipe else x
        if "numpy_default_rng" in recipe:
            return self._draw(recipe)
        if "stored" in recipe:
            x = self.stored[recipe["stored"]]
            return _evaluate(recipe["then"], x=x) if "then" in recipe else x
        if "one_hot" in recipe:
            rows = torch.zeros(len(recipe["one_hot"]), recipe["num_classes"])
            for row, classes in zip(rows, recipe["one_hot"], strict=True):
                row[classes] = 1
            return rows
        if "value" in recipe:
            return recipe["value"]
        raise KeyError(f"{self.file}: unknown input recipe {recipe}")

    def _draw(self, recipe: dict[str, Any]) -> Any:
        if "count" in recipe:
            name = recipe["index"]
            return [self._draw_once(recipe, {name: number}) for number in range(recipe["count"])]
        return self._draw_once(recipe, {})

    def _draw_once(self, recipe: dict[str, Any], names: dict[str, Any]) -> np.ndarray:
        known = {**names, **{name: self.make(part) for name, part in recipe.get("where", {}).items()}}
        seeds = [known.get(part, part) if isinstance(part, str) else part for part in recipe["numpy_default_rng"]]
        x = _evaluate(recipe["draw"], rng=np.random.default_rng(seeds), **known)
        return _evaluate(recipe["then"], x=x, **known) if "then" in recipe else x


def _evaluate(expression: str, **names: Any) -> Any:
    return eval(expression, {"np": np, "torch": torch, "F": F, **names})  # test data of this repository


def cases(folder: Path) -> Iterator[Case]:
    """All cases of a folder."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return (Case(folder, file, entry) for file, entry in manifest.items())


def compare(case: Case, results: Results) -> None:
    """Compares every output of a case that is not an input.

    Raises:
        AssertionError: an output was not computed, or differs by more than the manifest allows.
    """
    for key, output in case.entry["outputs"].items():
        if output["compare"] in ("input", "ignore"):
            continue
        which = output["case"]
        place = output["role"], tuple(which) if isinstance(which, list) else which
        assert place in results, f"{case.file}: nothing computed for {key} (role {place[0]!r}, case {place[1]!r})"
        computed, expected = _as_array(results[place]), case.stored[key]
        if output["slice"]:
            computed = _evaluate(f"x{output['slice']}", x=computed)
        assert computed.size == expected.size, f"{case.file} {key}: {computed.shape} computed, {expected.shape} stored"
        _assert_close(f"{case.file} {key}", computed.reshape(expected.shape), expected, output)


def _assert_close(name: str, computed: np.ndarray, expected: np.ndarray, output: dict[str, Any]) -> None:
    kind = output["compare"]
    if kind == "allclose":
        np.testing.assert_allclose(
            computed * (output.get("scale") or 1.0),
            expected,
            rtol=output["rtol"],
            atol=output["atol"],
            equal_nan=output["equal_nan"],
            err_msg=name,
        )
    elif kind == "exact":
        np.testing.assert_array_equal(computed, expected, err_msg=name)
    elif kind == "labels":
        mismatch = float((computed != expected).mean())
        assert mismatch <= output["max_mismatch"], f"{name}: {mismatch:.2%} of the labels differ"
    else:
        raise AssertionError(f"{name}: unknown comparison {kind!r}")


def _as_array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
