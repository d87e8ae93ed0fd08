"""Typed, strict configuration: dataclass defaults <- YAML <- papers' flags <- ``key=value`` from the command line.

One dataclass describes an experiment; its sections (``data``, ``model``, ``train``, ``infer``, ...) are dataclasses
whose fields are made by `option`, with a sentence each and, where a paper's own command had a flag for it, that flag.
Unknown keys and wrong types are errors that name the key.
"""

import contextlib
import copy
import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from common.run.errors import UserError
from common.run.files import atomic_write
from common.run.method import CONFIG_DIR, ENTRY, EXPERIMENT, check_method, method_of
from common.run.similar import did_you_mean, similar_key
from common.run.strict_yaml import LIMIT, parse_yaml
from common.run.text import read_text

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition on a value beyond its type: a text that follows "it must be", and a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Rule:
    """A number that is not below ``least``."""
    return Rule(f"at least {least}", lambda value: value >= least)


def between(least: float, most: float) -> Rule:
    """A number from ``least`` to ``most``, both included."""
    return Rule(f"from {least} to {most}", lambda value: least <= value <= most)


ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
FRACTION = between(0, 1)
BELOW_ONE = Rule("from 0 to below 1", lambda value: 0 <= value < 1)


def numbers(count: int, each: Rule | None = None) -> Rule:
    """A list of ``count`` numbers, with a rule for each."""
    words = f"{count} numbers" + (f", each {each.words}" if each else "")
    return Rule(words, lambda values: len(values) == count and all(map(each.holds, values) if each else ()))


def some(each: Rule, least: int = 1) -> Rule:
    """A list of ``least`` numbers or more, with a rule for each."""
    words = "one or more numbers" if least else "a list of numbers"
    return Rule(f"{words}, each {each.words}", lambda values: len(values) >= least and all(map(each.holds, values)))


def pair(each: Rule) -> Rule:
    """Two numbers in ascending order, with a rule for each."""
    words = f"2 numbers in ascending order, each {each.words}"
    return Rule(words, lambda values: len(values) == 2 and values[0] <= values[1] and all(map(each.holds, values)))


def or_empty(rule: Rule) -> Rule:
    """An empty list, or one that another rule allows."""
    return Rule(f"empty or {rule.words}", lambda values: not values or rule.holds(values))


MOST_PARTS = 16  # of a key on the command line, and characters of one argument
LONGEST = 20_000
LARGEST = 1e15  # of any number in a configuration


def is_finite(value: Any) -> bool:
    """Whether a value, or each of a list, is no number or a finite one."""
    values = value if isinstance(value, list) else [value]
    return all(abs(number) <= LARGEST for number in values if isinstance(number, int | float))  # nan compares as False


def option(
    default: Any, sentence: str, flag: str | tuple[str, ...] = (), choices: Sequence[str] = (),
    rule: Rule | None = None, formerly: str = "",
) -> Any:  # fmt: skip
    """A documented configuration field.

    Args:
        default: Its default; a list is copied per instance.
        sentence: Its meaning in one sentence, for ``--help``.
        flag: Command-line spellings of the papers' commands that set it.
        choices: The allowed values; none: any.
        rule: A further condition on the value; every number needs one, and must be finite besides.
        formerly: An earlier name of the field, which YAMLs and command lines may go on using.
    """
    if choices:
        rule = Rule(f"one of: {', '.join(choices)}", lambda value: value in choices)
    flags = (flag,) if isinstance(flag, str) else tuple(flag)
    metadata = {"help": sentence, "flags": flags, "choices": tuple(choices), "rule": rule, "formerly": formerly}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, **defaults: Any) -> Any:
    """A nested section, with other defaults for this experiment where given."""
    return dataclasses.field(default_factory=lambda: cls(**defaults))


@dataclasses.dataclass
class Leaf:
    """One configuration key with all that ``--help`` and the parser need."""

    key: str
    type: Any
    default: Any
    help: str
    flags: tuple[str, ...]
    choices: tuple[str, ...]
    rule: Rule | None
    formerly: str

    @property
    def former_key(self) -> str:
        """The key under its earlier name."""
        return self.key.removesuffix(self.key.rpartition(".")[2]) + self.formerly


def leaves(config: Any, prefix: str = "") -> list[Leaf]:
    """All keys of a configuration dataclass instance, sections flattened with dots."""
    found = []
    plain: type = type(config)
    hints = _hints(plain)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        if dataclasses.is_dataclass(value):
            found += leaves(value, key + ".")
        else:
            found.append(Leaf(key, hints[field.name], value, **field.metadata))
    return found


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(cls)


def read_keys(config: Any, reads: Sequence[str] | None = None, ignores: Sequence[str] = ()) -> list[Leaf]:
    """The keys of a configuration that a script reads.

    Args:
        reads: sections and keys (None: all), and ``ignores`` exceptions among them.
    """

    def is_in(leaf: Leaf, names: Sequence[str]) -> bool:
        return f"{leaf.key}.".startswith(tuple(f"{name}." for name in names))

    return [leaf for leaf in leaves(config) if (reads is None or is_in(leaf, reads)) and not is_in(leaf, ignores)]


def config_path(name: str, method: str = "") -> Path:
    """The YAML that ``--exp NAME`` means: a path to a file, or the name of one in ``configs/``.

    Args:
        method: the script's; the message names experiments of it alone.

    Raises:
        UserError: neither is there.
    """
    candidates = [Path(name), CONFIG_DIR / name, CONFIG_DIR / f"{name}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml") if not method or method_of(path) == method)
    hint = did_you_mean(Path(name).stem, known)
    raise UserError(
        f"no configuration {name!r}: looked for {', '.join(map(str, candidates))}.{hint} There are: {', '.join(known)}"
    )


def load_config(cls: type[C], yaml_path: Path | None = None, overrides: Sequence[str] = (), kind: str = "") -> C:
    """An instance of ``cls``: defaults, then the YAML, then ``key=value`` overrides; every key and type is checked.

    Args:
        kind: the script's, for the message about a YAML of another method; see `check_method`.

    Raises:
        UserError: the YAML is of another method; an unknown key, a wrong type, a value that a field does not allow,
            values that do not suit each other (the method ``check`` of a section or of the whole), or unreadable YAML.
    """
    plain: type = cls
    config = copy.deepcopy(_defaults(plain))
    keys = leaves(cls())
    renamed = {leaf.former_key: leaf.key for leaf in keys if leaf.formerly}
    kinds = {leaf.key: leaf.type for leaf in keys}
    if yaml_path is not None:
        texts = [key for leaf in keys for key in (leaf.key, leaf.former_key) if leaf.type in (str, list[str])]
        content = read_yaml(yaml_path, texts)
        content.pop(EXPERIMENT, None)
        check_method(yaml_path, content.pop(ENTRY, None), getattr(cls, ENTRY, ""), kind)
        content = _without_defaults(_under_new_names(content, renamed), {leaf.key: leaf.default for leaf in keys})
        config = _merge(config, content, str(yaml_path))
    values = []
    for text in overrides:
        key, separator, value = text.partition("=")
        shown = text[:200]
        if not separator or not key or key.count(".") > MOST_PARTS or len(text) > LONGEST:
            raise UserError(f"{shown!r} is not of the form key=value (see --help for flags and keys)")
        key = renamed.get(key, key)
        try:
            values.append((key, _value(value, kinds.get(key)), f"the command line ({shown})"))
        except ValueError as error:
            raise UserError(f"the value of {shown} is not valid YAML: {error}") from error
    config = _merge_values(config, values)
    try:
        result: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:  # a ${reference} to nothing
        raise UserError(f"configuration key {error.full_key!r}: {str(error).splitlines()[0]}") from error
    for leaf in leaves(result):
        if not is_finite(leaf.default):
            raise UserError(f"{leaf.key} is {leaf.default!r}; it must be finite, at most {LARGEST:g}")
        if leaf.rule and not leaf.rule.holds(leaf.default):
            raise UserError(f"{leaf.key} is {leaf.default!r}; it must be {leaf.rule.words}")
    for check in each_method(result, "check"):
        check()
    return result


@functools.cache
def _defaults(cls: type) -> DictConfig:
    """A configuration of defaults, which takes longer to make than to copy."""
    defaults = OmegaConf.structured(cls)
    assert isinstance(defaults, DictConfig)
    return defaults


def each_method(config: Any, method: str, reads: Sequence[str] | None = None) -> Iterator[Callable[..., Any]]:
    """A method of all sections, then of the whole, where they have it.

    Args:
        reads: sections and keys that a script reads; None: all.
    """
    read = None if reads is None else {name.partition(".")[0] for name in reads}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and (read is None or field.name in read):
            yield from each_method(value, method)
    if hasattr(config, method):
        yield getattr(config, method)


def _value(text: str, kind: Any) -> Any:
    """A value from the command line: YAML, but for texts, which are taken as they are unless they come in quotes."""
    is_bare_text = kind is str and text[:1] not in ("'", '"')
    return text if is_bare_text or not text else parse_yaml(text)


def read_yaml(path: Path, texts: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of a YAML file.

    Args:
        texts: keys whose values are taken as they are written; see `parse_yaml`.

    Raises:
        UserError: it cannot be read, is no YAML or is refused (`common.run.strict_yaml`), or holds no sections.
    """
    try:
        content = parse_yaml(read_text(path, "the YAML", LIMIT), texts) or {}
    except ValueError as error:
        raise UserError(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold sections with keys, not {type(content).__name__}")
    return content


def _under_new_names(content: dict, renamed: dict[str, str]) -> dict:
    """The content of a YAML, which is changed, with the keys that have been renamed under their present names."""
    for former, key in renamed.items():
        *path, old = former.split(".")
        place: Any = content
        for name in path:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict) and old in place:
            place.setdefault(key.rpartition(".")[2], place.pop(old))
    return content


def _without_defaults(content: dict, defaults: dict[str, Any], prefix: str = "") -> dict:
    """The content of a YAML without values that are the defaults by key: merging takes time for each."""
    found = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            found[name] = _without_defaults(value, defaults, f"{key}.")
        elif key not in defaults or repr(value) != repr(defaults[key]):
            found[name] = value
    return found


def _merge(config: DictConfig, update: dict, source: str, is_typed: bool = False) -> DictConfig:
    sections = [name for name in config if isinstance(config[name], DictConfig)]
    update = {name: keys for name, keys in update.items() if name not in sections or keys is not None}  # none under it
    for name, keys in update.items():
        if name in sections and not isinstance(keys, dict):
            raise UserError(f"{name} in {source} is a section: it takes keys such as {name}.{next(iter(config[name]))}")
    try:
        merged = OmegaConf.unsafe_merge(config, OmegaConf.create(update))
        assert isinstance(merged, DictConfig)
        return merged
    except ConfigKeyError as error:
        schema: Any = OmegaConf.get_type(config)
        known = [leaf.key for leaf in leaves(schema())]
        hint = similar_key(str(error.full_key), known, map(str, config), is_typed)
        raise UserError(
            f"unknown configuration key {error.full_key!r} in {source}.{hint} --help lists all keys."
        ) from error
    except OmegaConfBaseException as error:
        detail = str(error.msg or error).splitlines()[0]
        where = f"configuration key {error.full_key!r}" if error.full_key else "a configuration key"
        raise UserError(f"wrong value for {where} in {source}: {detail}") from error


def _merge_values(config: DictConfig, values: Sequence[tuple[str, Any, str]]) -> DictConfig:
    """The configuration with keys, values and their sources: together, or one by one for the error of one of them."""
    together: dict[str, Any] = {}
    if all(_put(together, key, value) for key, value, _ in values):
        with contextlib.suppress(UserError):
            return _merge(config, together, "", is_typed=True)
    for key, value, source in values:
        nested: dict[str, Any] = {}
        _put(nested, key, value)
        config = _merge(config, nested, source, is_typed=True)
    return config


def _put(nested: dict[str, Any], key: str, value: Any) -> bool:
    """Puts a value under a key of parts with dots; False: another one is in its place, or it is a whole section."""
    *path, last = key.split(".")
    for name in path:
        nested = nested.setdefault(name, {})
        if not isinstance(nested, dict):
            return False
    return nested.setdefault(last, value) is value and not isinstance(value, dict)


def save_config(config: Any, path: Path, experiment: str = "") -> None:
    """Writes the resolved configuration, its method and the experiment's name, if given, as YAML, atomically."""
    with atomic_write(path, "w") as file:
        file.write(f"{ENTRY}: {config.method}\n" if hasattr(config, ENTRY) else "")
        file.write(f"{EXPERIMENT}: {experiment}\n" if experiment else "")
        file.write(OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config))))
