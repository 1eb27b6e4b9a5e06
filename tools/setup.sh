#!/bin/sh
# Find a Python that can build .venv and let it (tools/setup_venv.py does the work).
#
#   tools/setup.sh runtime|dev
#
# PYTHON=... names the interpreter, TORCH=... another build of torch. This part is shell because
# it must speak when there is no Python at all.
set -eu
cd "$(dirname "$0")/.."
level=$1
without_venv=

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

try() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || return 0
    if "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        exec "$1" tools/setup_venv.py "$level"
    fi
    without_venv=${without_venv:-$1}
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
else
    # 3.11 first: the pins were resolved and are tested there.
    for name in python3.11 python3.12 python3.13 python3.14 python3 python; do try "$name"; done
fi

if [ -n "$without_venv" ]; then
    version=$(version_of "$without_venv")
    cat >&2 <<EOF
setup: $without_venv is Python $version, without the modules venv and ensurepip
  fix: Debian, Ubuntu: apt install python$version-venv
EOF
else
    name=${PYTHON:-python3}
    cat >&2 <<EOF
setup: apr needs Python 3.11 or newer; $name is $(version_of "$name" || echo "not there")
  fix: Debian 12 and later, Ubuntu 24.04 and later: apt install python3 python3-venv
       Ubuntu 22.04: apt install python3.11 python3.11-venv
       Fedora: dnf install python3      macOS: brew install python
       a Python in another place: add PYTHON=/path/to/python3 to the command
EOF
fi
exit 1
