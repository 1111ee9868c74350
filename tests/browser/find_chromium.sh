#!/bin/sh
# Say which browser the tests will drive; install Debian's as root. Without one the browser tests are skipped.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  echo "Installing Chromium for the browser tests ..."
  apt-get update -q >/dev/null && apt-get install -y -q chromium >/dev/null && exit 0
fi
echo "No Chromium or Chrome on the PATH: the browser tests will be skipped. Install chromium to run them."
