#!/usr/bin/env bash
# ruff, mypy and the test suite in two processes of one thread each; arguments go to pytest:
# bash scripts/test.sh -k metrics
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/ruff check .
# Without its cache mypy takes half a minute: it runs beside the tests' imports, and its result comes after theirs.
types="$(mktemp)"
trap 'kill "$mypy" 2>/dev/null || true; rm -f "$types"' EXIT
.venv/bin/mypy common methods scripts evaluation.py >"$types" 2>&1 &
mypy=$!
# Tiny networks run no faster on two threads. The tests of a file share fixtures and stay together.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# glibc keeps freed memory for the next tensors: giving it back and clearing it anew takes a tenth of the suite's time.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
status=0
.venv/bin/python -m pytest -n 2 --dist loadfile "$@" || status=$?
wait "$mypy" || status=$((status ? status : 1))
cat "$types"
exit "$status"
