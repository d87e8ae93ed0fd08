"""Starts several processes of a script as torchrun does, without its report of a failure: the script has said why.

    python -m common.run.launch --standalone --nproc_per_node 2 SCRIPT --name exp

Takes torchrun's arguments, and ends with the exit code of the process that failed first.
"""

import logging
import sys


def main() -> int:
    """Command line → processes; the first failure's exit code, of a signal 128 and its number."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # a line for each process that it ends
    try:
        torchrun()
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
