#!/bin/sh
# The browser tests drive the system's Chromium. Install it where that is allowed; otherwise say what is missing.
command -v chromium >/dev/null && exit 0
packages="chromium fonts-dejavu-core"
if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then run=""; else run="sudo -n"; fi
    if $run apt-get update -qq && DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $packages; then
        exit 0
    fi
fi
echo "Chromium is missing and could not be installed here: install '$packages' with the system's package manager." >&2
[ "$CI" = true ] && exit 1
echo "The browser tests will be skipped." >&2
exit 0
