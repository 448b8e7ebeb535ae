#!/bin/sh
# Install Debian packages where that is allowed; otherwise say what is missing: sh tools/system_packages.sh PACKAGE...
if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi
if command -v apt-get >/dev/null \
    && $as_root apt-get update -qq >/dev/null \
    && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; then
    exit 0
fi
echo "Missing, and not to be installed from here: $*. Please install them with the system's package manager." >&2
exit 1
