"""The report of the data check."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """The lines of the report."""

    show: int
    problems: int = 0
    lines: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        """Begins a section."""
        self.lines += ["", text]

    def row(self, name: str, value: object, verdict: str = "ok", offenders: Iterable[object] = ()) -> None:
        """Adds a line; ``verdict`` is ok, note or PROBLEM; offenders are named for the latter two only."""
        self.problems += verdict == "PROBLEM"
        self.lines.append(f"  {name:<42}{value!s:>12}   {verdict}")
        if verdict != "ok":
            named = [str(item) for item in offenders]
            self.lines += [f"      {item}" for item in named[: self.show]]
            if len(named) > self.show:
                self.lines.append(f"      ... and {len(named) - self.show} more")

    def offence(self, name: str, offenders: Sequence[object], verdict: str = "PROBLEM") -> None:
        """Adds a line that counts offenders; none is ok."""
        self.row(name, len(offenders), verdict if offenders else "ok", offenders)
