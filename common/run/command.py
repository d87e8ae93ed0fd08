"""The command line of a script: flags, ``key=value`` texts, and a help that lists every configuration key."""

import argparse
import os
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from common.run.config import Leaf, Rule, is_finite, read_keys
from common.run.errors import UserError
from common.run.files import ROOT
from common.run.papers import PaperFlags, translate
from common.run.similar import similar_argument


class _Help(argparse.HelpFormatter):
    """Leaves the epilog (the table of keys) as it is, wraps the rest."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class ScriptParser(argparse.ArgumentParser):
    """A parser whose errors are `UserError`, and name the flag or key that an unknown argument is most like.

    Attributes:
        keys: the configuration keys that the script takes.
        paper: flags of the paper's own command that are translated before the command line is parsed.
    """

    keys: Sequence[str] = ()
    paper: PaperFlags = MappingProxyType({})

    def translated(self, argv: Sequence[str]) -> list[str]:
        """A command line without the paper's flags; see `common.run.papers.translate`."""
        path = Path(sys.argv[0]).absolute()
        script = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        return translate(argv, self._option_string_actions, self.paper, script)

    def error(self, message: str) -> NoReturn:
        """Raises the error.

        Raises:
            UserError: always.
        """
        kind, _, unknown = message.partition(": ")
        if kind == "unrecognized arguments":
            word = unknown.split()[0].partition("=")[0]
            hint = similar_argument(word, self._option_string_actions, self.keys)
            raise UserError(f"unknown argument {word!r}.{hint} --help lists all flags and keys.")
        raise UserError(f"{message}. --help lists all flags and keys.")

    def has(self, flag: str) -> bool:
        """Whether the parser has a flag."""
        return flag in self._option_string_actions

    def own_flags(self) -> set[str]:
        """The flags that stand for no configuration key."""
        return {flag for flag, action in self._option_string_actions.items() if not action.dest.startswith("flag:")}


def number(kind: type[int] | type[float], rule: Rule) -> Callable[[str], Any]:
    """The type of a plain flag that takes a number: finite, with a rule as `common.run.config.option` has."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' * (kind is int)}number") from None
        if not (is_finite(value) and rule.holds(value)):
            raise argparse.ArgumentTypeError(f"it is {text}; it must be finite and {rule.words}")
        return value

    return convert


def script_parser(
    description: str, cls: type | None = None, reads: Sequence[str] | None = None, ignores: Sequence[str] = ()
) -> ScriptParser:
    """A parser whose ``--help`` also lists every configuration key with its sentence.

    Fields with a flag become arguments of that name; positional ``key=value`` arguments set any key.

    Args:
        cls: The configuration; None for a script with plain arguments only.
        reads: Sections and keys that the script reads (None: all of them); the others are accepted, but have neither
            flags nor lines of help.
        ignores: Sections and keys among them that it does not read.
    """
    if cls is None:
        return ScriptParser(description=description.strip(), formatter_class=_Help, allow_abbrev=False)
    keys = read_keys(cls(), reads, ignores)
    parser = ScriptParser(
        description=description.strip(), epilog=_key_table(keys), formatter_class=_Help, allow_abbrev=False
    )
    parser.keys = [leaf.key for leaf in keys]
    parser.paper = getattr(cls, "paper", parser.paper)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="set any configuration key (listed below)")
    parser.add_argument("--check", action="store_true", help="only say whether all input is there, and what is missing")
    for leaf in keys:
        if leaf.flags:
            nargs = "+" if typing.get_origin(leaf.type) is list else None
            parser.add_argument(*leaf.flags, dest=f"flag:{leaf.key}", nargs=nargs, metavar="X", help=f"= {leaf.key}")
    return parser


def parse_config(
    parser: ScriptParser, argv: Sequence[str] | None = None, has_words: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line of a `script_parser`.

    Args:
        has_words: whether texts without ``=`` are words of the script's own, such as the names of runs.

    Raises:
        UserError: an unknown flag, a value that it does not take, or a flag of the script without its dashes.

    Returns:
        The script's own arguments, and the ``key=value`` texts that the configuration flags and the positional
        arguments stand for, in order of strength.
    """
    args = parser.parse_intermixed_args(parser.translated(sys.argv[1:] if argv is None else argv))
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
    flags = parser.own_flags()
    for text in positional:
        flag = f"--{text.partition('=')[0]}"
        if flag in flags and not (has_words and "=" not in text):
            raise UserError(f"{text!r}: {flag} is a flag; write {flag} VALUE. --help lists all flags and keys.")
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
