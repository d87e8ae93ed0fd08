"""Flags of the papers' own commands that are no flags here: what takes their place, so that the commands work.

Flags that stand for a configuration key are part of its field (`common.run.config.option`). The others are named in
tables `PaperFlags`, one for each method (attribute ``paper`` of its configuration); a script translates its command
line by its method's table before it is parsed. All commands, old and new: docs/papers_commands.md.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.run.errors import UserError
from common.run.processes import say_once

CHECKPOINT_FOLDERS = ("ckpt", "checkpoints")


@dataclass(frozen=True)
class Instead:
    """What takes the place of a flag, of the name of a foreign key, or of a command's first word.

    Attributes:
        arguments: the arguments in its place; ``{}`` stands for its value.
        takes: the number of its values; -1: all up to the next flag.
        only: the values that mean what this code does; empty: any.
        reason: the reason why it is left out, for the note.
        names_run: whether the value, a folder or a file of weights, names the run if ``--name`` does not.
        is_answered: whether the command is not run, but answered with the line that takes its place, as the flag names
            a file that is not read here.
    """

    arguments: str = ""
    takes: int = 1
    only: tuple[str, ...] = ()
    reason: str = ""
    names_run: bool = False
    is_answered: bool = False


PaperFlags = Mapping[str, Instead]

# torch.distributed.launch adds it; torchrun's environment, which it sets as well, says the same.
LAUNCHER: PaperFlags = {flag: Instead(reason="the environment tells it") for flag in ("--local_rank", "--local-rank")}

# Of the scripts of CTI, PCSS and DiG, whose parsers are timm's: without effect there, or one value alone is possible.
_IDLE = "it has no effect in the paper's code"
TIMM: PaperFlags = {
    **dict.fromkeys(
        ("--resize", "--crop", "--T", "--A", "--M", "--step", "--gpu", "--out_num", "--smoothing", "--clip-grad",
         "--trm", "--color-jitter", "--lr_cnn", "--max_step", "--mvweight"), Instead(reason=_IDLE),
    ),
    **dict.fromkeys(("--cj", "--CRF", "--visport", "--repeated-aug"), Instead(takes=0, reason=_IDLE)),
    "--label_file_path": Instead(reason="image labels are found by themselves; data.labels names a file"),
    "--C": Instead(reason="the data set tells the number of classes"),
    "--model": Instead(reason="the script has one network", only=("CTI", "PCSS", "DiG", "trm", "TRM")),
    "--opt": Instead(only=("adamw",), reason="AdamW is the optimiser"),
    "--opt-eps": Instead("optim.eps={}"),
    "--sched": Instead(only=("cosine",), reason="the schedule is the cosine"),
    "--drop": Instead(only=("0", "0.0"), reason="there is no dropout"),
    "--reprob": Instead(only=("0", "0.0"), reason="there is no random erasing"),
    "--alphas": Instead(takes=-1, reason="a training refines no seeds; the inference script does"),
    "--dict": Instead(takes=0, reason="a training writes no seeds; the inference script does"),
    "--vis": Instead(takes=0, reason="a training draws no seeds; the inference script does"),
    "--crf": Instead(takes=0, reason="a training refines no seeds; the inference script does"),
}  # fmt: skip


def translate(argv: Sequence[str], flags: Mapping[str, object], paper: PaperFlags, script: str) -> list[str]:
    """A command line in which the paper's own flags are replaced; says each replacement once.

    Args:
        flags: the script's own, which are left as they are.
        script: its path, for the line that is the answer to a command that cannot be run.

    Raises:
        UserError: a value is missing, or is not possible here; or the command is answered.
    """
    known = {name: instead for name, instead in {**LAUNCHER, **paper}.items() if name not in flags}
    waiting = list(argv)
    result: list[str] = []
    names: list[str] = []
    answers = []
    while waiting:
        word = waiting.pop(0)
        is_first = len(waiting) == len(argv) - 1
        flag, separator, value = word.partition("=") if word.startswith("-") else (word, "", "")
        if flag not in known or not (flag.startswith("-") or "." in flag or is_first):  # "val" may be a value
            result.append(word)
            continue
        instead = known[flag]
        values = [value] if separator else _values(flag, instead.takes, waiting)
        if instead.only and set(values) - set(instead.only):
            raise UserError(f"{flag} {' '.join(values)}: {instead.reason}; here {flag} can only be {instead.only[0]}")
        new = shlex.split(instead.arguments.format(*map(shlex.quote, values)))
        of_run = ["--name", _run_of(values[0])] if instead.names_run else []
        names = names or of_run
        result += new
        answers += [instead.reason] if instead.is_answered else []
        if flag not in LAUNCHER and not instead.is_answered:
            meant = shlex.join([*of_run, *new])
            said = f"means {meant} here" if meant else f"is left out: {instead.reason}"
            say_once(f"note: {shlex.join([flag, *values])} {said}")
    if not any(word.partition("=")[0] == "--name" for word in result):
        result = [*names, *result]
    if answers:
        result = result if "--name" in result else ["--name", "NAME", *result]
        raise UserError(f"{answers[0]}. The line here: python {script} {shlex.join(result)}")
    return result


def _values(flag: str, takes: int, waiting: list[str]) -> list[str]:
    """Takes a flag's values from the words after it."""
    count = takes
    if takes < 0:
        count = next((i for i, word in enumerate(waiting) if word.startswith("-")), len(waiting))
    if len(waiting) < count:
        raise UserError(f"{flag} needs a value")
    values = waiting[:count]
    del waiting[:count]
    return values


def _run_of(text: str) -> str:
    """The name of the run that a folder or a file of weights belongs to."""
    path = Path(text)
    if path.parent.name in CHECKPOINT_FOLDERS and path.parent.parent.name:
        return path.parent.parent.name
    return path.stem if path.suffix in (".pth", ".pt") else path.name
