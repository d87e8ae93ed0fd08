"""Feeds mutated files to the readers of the project: each must give a value, or one clear line.

python scripts/fuzz.py                              all readers, 10 seconds each
python scripts/fuzz.py image mask --seconds 600     some readers
python scripts/fuzz.py --list                       names of the readers

Inputs that end in anything else (another exception, a signal, a hang, a message of several lines) are saved to
experiment/fuzz/<reader>-<n>, and the exit code is 1. A reader is added by one line in the table of
common/fuzz/readers.py.
"""

import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from common.run.command import number, script_parser
from common.run.config import ABOVE_ZERO
from common.run.errors import UserError, run_script
from common.run.folder import EXPERIMENT_DIR
from common.run.similar import did_you_mean

if TYPE_CHECKING:
    from common.fuzz.engine import Findings, Reader

SAVED = EXPERIMENT_DIR / "fuzz"


def main() -> int:
    """Command line → figures of every reader; 1 if any failed."""
    parser = script_parser(__doc__)
    parser.add_argument("reader", nargs="*", metavar="READER", help="which; none: all")
    parser.add_argument(
        "--seconds", type=number(float, ABOVE_ZERO), default=10.0, help="for each reader (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="name the readers and end")
    args = parser.parse_args()

    from common.fuzz.readers import readers

    table = readers()
    for name in args.reader:
        if name not in table:
            raise UserError(f"no reader {name!r}.{did_you_mean(name, table)} There are: {', '.join(table)}")
    if args.list:
        print("\n".join(table))
        return 0
    names = args.reader or list(table)
    total = failures = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = run_reader(name, table[name], Path(folder), args.seconds, args.seed)
        total += found.total
        failures += len(found.failures)
    print(f"{total} inputs of {len(names)} readers, {failures} kinds of failures")
    return int(failures > 0)


def run_reader(name: str, reader: "Reader", folder: Path, seconds: float, seed: int) -> "Findings":
    """Feeds one reader, prints its figures, and saves the inputs that failed."""
    import torch

    from common.fuzz.engine import fuzz

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    started = time.monotonic()
    found = fuzz(reader, folder, seconds, seed)
    print(
        f"{name:<14} {found.total:>8} inputs in {time.monotonic() - started:.0f} s: {found.values} values, "
        f"{found.errors} clear errors, {found.failures.total()} failures",
        flush=True,
    )
    for place, (failure, count) in enumerate(found.failures.most_common()):
        SAVED.mkdir(parents=True, exist_ok=True)
        file = SAVED / f"{name}-{place}{reader.suffix}"
        file.write_bytes(found.saved[failure])
        print(f"  {count} x {failure}; the first: {file}", flush=True)
    return found


if __name__ == "__main__":
    run_script(main)
