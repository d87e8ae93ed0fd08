#!/usr/bin/env bash
# Makes .venv and installs the pinned requirements and the project (editable). Safe to run again and to interrupt:
# a finished set-up is recognised by its stamp and takes no time, an unfinished one is continued.
#
#   bash scripts/setup.sh                     the index's torch (CUDA build; runs on CPU as well; about 5.5 GB)
#   TORCH_INDEX=<address> bash scripts/setup.sh   torch and torchvision from another index, e.g. one of CPU-only builds
#   PYTHON=/path/to/python bash scripts/setup.sh  a certain interpreter (3.11 or later)
#
# pydensecrf2 alone has to be compiled. Where it cannot be, set-up says so and is complete without it (the lattice gives
# the same labels); a later call tries again once a compiler, its settings or Python's headers have changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.complete
wanted=$(cat requirements.txt requirements-crf.txt pyproject.toml | cksum; echo "torch index: ${TORCH_INDEX:-default}")

without_crf() {  # ends the stamp of a set-up without pydensecrf2: all that another attempt could find changed
  echo "no pydensecrf2 with CC=${CC:-} CXX=${CXX:-}"
  command -v cc gcc clang c++ g++ clang++ || true
  ls "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" 2>/dev/null || true
}
is_complete() {
  [ -f "$stamp" ] || return 1
  local found
  found=$(cat "$stamp")
  [ "$found" = "$wanted" ] || [ "$found" = "$wanted"$'\n'"$(without_crf)" ] || return 1
  # A tree that was moved has a .venv whose paths are stale: the editable install is asked where it points to.
  [ "$(.venv/bin/python -c 'import common; print(common.__path__[0])' 2>/dev/null)" = "$PWD/common" ]
}
if is_complete; then exit 0; fi
echo "Setting up .venv (once; a few minutes with a fast network) ..."
mkdir -p .venv
if command -v flock >/dev/null; then  # two set-ups at once: the second waits for the first, and is done
  exec 9>.venv.lock
  flock 9
  if is_complete; then exit 0; fi
fi
rm -f "$stamp"

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if ! is_new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=""
  for candidate in "${PYTHON:-}" python3 python3.12 python3.11 python3.13 python; do
    if [ -n "$candidate" ] && is_new_enough "$candidate"; then python=$candidate; break; fi
  done
  if [ -z "$python" ]; then
    echo "error: no Python 3.11 or later found. Install one, or name it: PYTHON=/path/to/python bash scripts/setup.sh" >&2
    exit 1
  fi
  "$python" -m venv --clear .venv
fi

.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
export VIRTUAL_ENV="$PWD/.venv" UV_HTTP_TIMEOUT=300 UV_LINK_MODE="${UV_LINK_MODE:-hardlink}"
export UV_COMPILE_BYTECODE=1  # as pip does: where Python may not write it later, each start would compile torch anew
install() {  # uv is many times faster than pip; where it cannot reach pip's index (mirrors in pip's own config), pip does it
  .venv/bin/uv pip install "$@" || {
    echo "uv could not install this; trying the same with pip ..." >&2
    .venv/bin/python -m pip install --disable-pip-version-check "$@"
  }
}
if [ -n "${TORCH_INDEX:-}" ]; then
  # That index comes first; what it does not have, their dependencies, comes from the usual one. Local version labels
  # (2.x.y+cpu) satisfy the pins of requirements.txt, so the next call keeps these two.
  .venv/bin/uv pip install --index "$TORCH_INDEX" $(grep -E '^torch(vision)?==' requirements.txt)
fi
install -r requirements.txt
install --no-deps -e .
.venv/bin/python -m compileall -qq common methods
log=.venv/pydensecrf2.log
if install -c requirements.txt -r requirements-crf.txt >"$log" 2>&1; then
  rm "$log"
else
  wanted+=$'\n'$(without_crf)
  echo "note: pydensecrf2 could not be built ($log); dense CRFs run on the project's own lattice: the same labels," \
    "somewhat slower on CPUs. To get it, install a C++ compiler and Python's headers (Debian: apt install g++" \
    "python3-dev) and run bash scripts/setup.sh again." >&2
fi
printf '%s\n' "$wanted" >"$stamp"
echo "Set-up complete."
