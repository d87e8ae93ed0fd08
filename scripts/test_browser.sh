#!/usr/bin/env bash
# Tests the report in a real browser. Brings Debian's chromium and its driver where that is possible, and Selenium;
# where no browser can be had, says so and ends well. Screenshots: WSSS_SCREENSHOTS=FOLDER bash scripts/test_browser.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
has_browser() { command -v chromedriver >/dev/null && command -v chromium >/dev/null; }
if ! has_browser && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "Installing chromium and its driver ..."
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium chromium-driver; } >.venv/browser.log 2>&1 || true
fi
if ! has_browser; then
  echo "note: no chromium with chromedriver here, and none could be installed: the report was not tested in a browser"
  exit 0
fi
if ! .venv/bin/python -c "import selenium" 2>/dev/null; then
  .venv/bin/uv pip install --python .venv/bin/python -q "selenium==4.51.0" ||
    .venv/bin/python -m pip install -q --disable-pip-version-check "selenium==4.51.0" || {
    echo "note: Selenium could not be installed: the report was not tested in a browser"
    exit 0
  }
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest tests/browser "$@"
