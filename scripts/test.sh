#!/usr/bin/env bash
# ruff, mypy, then the test suite in two processes of one thread each; arguments go to pytest:
# bash scripts/test.sh -k metrics
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/mypy common methods scripts evaluation.py
# Tiny networks run no faster on two threads. The tests of a file share fixtures and stay together.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# glibc keeps freed memory for the next tensors: giving it back and clearing it anew takes a tenth of the suite's time.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
