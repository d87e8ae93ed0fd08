"""Typed, strict configuration: dataclass defaults <- YAML <- papers' flags <- ``key=value`` from the command line.

One dataclass describes an experiment; its sections (``data``, ``model``, ``train``, ``infer``, ...) are dataclasses
whose fields are made by `option`, with a sentence each and, where a paper's own command had a flag for it, that flag.
Unknown keys and wrong types are errors that name the key.
"""

import argparse
import dataclasses
import difflib
import os
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from common.run.errors import UserError
from common.run.files import ROOT, atomic_write
from common.run.strict_yaml import LIMIT, parse_yaml
from common.run.text import read_text

CONFIG_DIR = ROOT / "configs"

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition on a value beyond its type: a text that follows "it must be", and a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: int) -> Rule:
    """A number that is not below ``least``."""
    return Rule(f"at least {least}", lambda value: value >= least)


def numbers(count: int) -> Rule:
    """A list of ``count`` numbers."""
    return Rule(f"{count} numbers", lambda values: len(values) == count)


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
        rule: A further condition on the value.
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
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        if dataclasses.is_dataclass(value):
            found += leaves(value, key + ".")
        else:
            found.append(Leaf(key, hints[field.name], value, **field.metadata))
    return found


def config_path(name: str) -> Path:
    """The YAML that ``--exp NAME`` means: a path to a file, or the name of one in ``configs/``.

    Raises:
        UserError: neither is there.
    """
    candidates = [Path(name), CONFIG_DIR / name, CONFIG_DIR / f"{name}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))
    raise UserError(
        f"no configuration {name!r}: looked for {', '.join(map(str, candidates))}. There are: {', '.join(known)}"
    )


def load_config(cls: type[C], yaml_path: Path | None = None, overrides: Sequence[str] = ()) -> C:
    """An instance of ``cls``: defaults, then the YAML, then ``key=value`` overrides; every key and type is checked.

    Raises:
        UserError: an unknown key, a wrong type, a value that a field does not allow, values that do not suit each other
            (the method ``check`` of a section or of the whole), or unreadable YAML.
    """
    config = OmegaConf.structured(cls)
    keys = leaves(cls())
    renamed = {leaf.former_key: leaf.key for leaf in keys if leaf.formerly}
    kinds = {leaf.key: leaf.type for leaf in keys}
    if yaml_path is not None:
        texts = [key for leaf in keys for key in (leaf.key, leaf.former_key) if leaf.type in (str, list[str])]
        content = read_yaml(yaml_path, texts)
        config = _merge(config, _under_new_names(content, renamed), str(yaml_path))
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise UserError(f"{text!r} is not of the form key=value (see --help for flags and keys)")
        key = renamed.get(key, key)
        try:
            nested = _value(value, kinds.get(key))
        except ValueError as error:
            raise UserError(f"the value of {key}={value} is not valid YAML: {error}") from error
        for part in reversed(key.split(".")):
            nested = {part: nested}
        config = _merge(config, nested, f"the command line ({text})")
    try:
        result: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:  # a ${reference} to nothing
        raise UserError(f"configuration key {error.full_key!r}: {str(error).splitlines()[0]}") from error
    for leaf in leaves(result):
        if leaf.rule and not leaf.rule.holds(leaf.default):
            raise UserError(f"{leaf.key} is {leaf.default!r}; it must be {leaf.rule.words}")
    call_each(result, "check")
    return result


def call_each(config: Any, method: str, *arguments: Any) -> None:
    """Calls a method of all sections, then of the whole, if they have it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            call_each(value, method, *arguments)
    if hasattr(config, method):
        getattr(config, method)(*arguments)


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


def _merge(config: DictConfig, update: dict, source: str) -> DictConfig:
    sections = [name for name in config if isinstance(config[name], DictConfig)]
    update = {name: keys for name, keys in update.items() if name not in sections or keys is not None}  # none under it
    for name, keys in update.items():
        if name in sections and not isinstance(keys, dict):
            raise UserError(f"{name} in {source} is a section: it takes keys such as {name}.{next(iter(config[name]))}")
    try:
        merged = OmegaConf.merge(config, OmegaConf.create(update))
        assert isinstance(merged, DictConfig)
        return merged
    except ConfigKeyError as error:
        hint = _similar(str(error.full_key), config)
        raise UserError(
            f"unknown configuration key {error.full_key!r} in {source}.{hint} --help lists all keys."
        ) from error
    except OmegaConfBaseException as error:
        detail = str(error.msg or error).splitlines()[0]
        where = f"configuration key {error.full_key!r}" if error.full_key else "a configuration key"
        raise UserError(f"wrong value for {where} in {source}: {detail}") from error


def _similar(key: str, config: DictConfig) -> str:
    """A question that names the key most like an unknown one: with the same last part, or of a similar name."""
    known = [leaf.key for leaf in leaves(OmegaConf.to_object(config))]
    last = key.rpartition(".")[2]
    names = {name.rpartition(".")[2]: name for name in known}
    close = [names[last]] if last in names else difflib.get_close_matches(key, [*known, *config], n=1, cutoff=0.8)
    close += [names[name] for name in difflib.get_close_matches(last, names, n=1)]
    return f" Did you mean {close[0]}?" if close else ""


def save_config(config: Any, path: Path) -> None:
    """Writes the resolved configuration as YAML, atomically."""
    with atomic_write(path, "w") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.structured(config)))


class _Help(argparse.HelpFormatter):
    """Leaves the epilog (the table of keys) as it is, wraps the rest."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def script_parser(
    description: str, cls: type | None = None, reads: Sequence[str] | None = None, ignores: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """A parser whose ``--help`` also lists every configuration key with its sentence.

    Fields with a flag become arguments of that name; positional ``key=value`` arguments set any key.

    Args:
        cls: The configuration; None for a script with plain arguments only.
        reads: Sections and keys that the script reads (None: all of them); the others are accepted, but have neither
            flags nor lines of help.
        ignores: Sections and keys among them that it does not read.
    """
    if cls is None:
        return argparse.ArgumentParser(description=description.strip(), formatter_class=_Help, allow_abbrev=False)
    keys = [leaf for leaf in leaves(cls()) if (reads is None or _is_in(leaf, reads)) and not _is_in(leaf, ignores)]
    parser = argparse.ArgumentParser(
        description=description.strip(), epilog=_key_table(keys), formatter_class=_Help, allow_abbrev=False
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set any configuration key (listed below)")
    for leaf in keys:
        if leaf.flags:
            nargs = "+" if typing.get_origin(leaf.type) is list else None
            parser.add_argument(*leaf.flags, dest=f"flag:{leaf.key}", nargs=nargs, metavar="X", help=f"= {leaf.key}")
    return parser


def _is_in(leaf: Leaf, names: Sequence[str]) -> bool:
    """Whether a key is one of some sections and keys, or lies in one."""
    return f"{leaf.key}.".startswith(tuple(f"{name}." for name in names))


def parse_config(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line of a `script_parser`.

    Returns:
        The script's own arguments, and the ``key=value`` texts that the configuration flags and the positional
        arguments stand for, in order of strength.
    """
    args = parser.parse_intermixed_args(argv)
    from_flags: list[str] = []
    positional: list[str] = []
    for name, value in list(vars(args).items()):
        if not name.startswith("flag:"):
            continue
        delattr(args, name)
        if isinstance(
            value, list
        ):  # "--W 0.1 1 1 train.lr=1e-3" puts the key=value among the numbers; "--scale 0.3,1.2" is a pair
            positional += [item for item in value if "=" in item]
            value = f"[{', '.join(part for item in value if '=' not in item for part in item.split(','))}]"
        if value is not None:
            from_flags.append(f"{name[5:]}={value}")
    positional += args.overrides
    del args.overrides
    return args, from_flags + positional


def _key_table(keys: list[Leaf]) -> str:
    width = min(max(shutil.get_terminal_size().columns, 80), 120)
    lines = ["configuration keys (YAML section.key, or key=value here):"]
    for leaf in keys:
        kind = " | ".join(leaf.choices) if leaf.choices else _type_name(leaf.type)
        earlier = f", formerly {leaf.former_key}" if leaf.formerly else ""
        lines.append(f"  {leaf.key}={_shown(leaf.default)}  ({kind}{earlier})")
        lines += textwrap.wrap(
            leaf.help, width, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False
        )
    return "\n".join(lines)


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint):
        return str(hint).replace("typing.", "")
    return hint.__name__


def _shown(value: Any) -> str:
    return os.fspath(value) if isinstance(value, Path) else str(value)
