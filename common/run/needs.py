"""What a script needs: all that is missing is found before any work, and told at once; ``--check`` ends there."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from common.run.config import Leaf, read_keys
from common.run.errors import UserError

T = TypeVar("T")


class DataSection(Protocol):
    """A configuration section that names a data set."""

    def needs(self, lists: Sequence[str]) -> Iterator[Callable[[], str]]:
        """Checks of the data set and of image lists, each of which says what it has found."""


class Needs:
    """Asks for one thing after the other; keeps the errors until the end.

    Attributes:
        found: texts of what is there.
        missing: messages of what is not.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.missing: list[str] = []

    def ask(self, check: Callable[..., T], *arguments: Any) -> T | None:
        """The result of a check, a text of which is kept; None after a `UserError`, whose message is kept."""
        try:
            result = check(*arguments)
        except UserError as error:
            self.missing += [str(error)] if str(error) not in self.missing else []
            return None
        self.found += [result] if isinstance(result, str) and result not in self.found else []
        return result

    def ask_all(self, checks: Iterable[Callable[..., Any]], *arguments: Any) -> None:
        """Asks every check with the same arguments."""
        for check in checks:
            self.ask(check, *arguments)

    def settle(self, only_check: bool) -> None:
        """Goes on if nothing is missing.

        Args:
            only_check: ``--check``: says what there is, and ends the script with exit code 0.

        Raises:
            UserError: something is missing; all of it is named.
        """
        if len(self.missing) == 1 and not only_check:
            raise UserError(self.missing[0])
        if self.missing:
            count = f"{len(self.missing)} things are" if len(self.missing) > 1 else "1 thing is"
            raise UserError(f"{count} missing:" + "".join(f"\n  - {message}" for message in self.missing))
        if only_check:
            if os.environ.get("RANK", "0") == "0":
                print("nothing is missing: " + "; ".join(self.found))
            raise SystemExit(0)


def image_lists(config: Any, reads: Sequence[str] | None, ignores: Sequence[str]) -> list[str]:
    """The image lists that a script reads: values of its keys whose names end in ``_list``.

    A section with a method ``needs_list`` says for each of its keys whether it is used.

    Args:
        reads: sections and keys that it reads (None: all), and ``ignores`` exceptions among them.
    """
    lists = [leaf.default for leaf in read_keys(config, reads, ignores) if _is_list_in_use(config, leaf)]
    return list(dict.fromkeys(name for name in lists if name))


def _is_list_in_use(config: Any, leaf: Leaf) -> bool:
    *path, name = leaf.key.split(".")
    section = config
    for part in path:
        section = getattr(section, part)
    return name.endswith("_list") and (not hasattr(section, "needs_list") or section.needs_list(name))
