#!/bin/sh
# Make a virtual environment at $1, installing Debian's python3-venv first where the standard library comes without it.
set -eu

venv=$1
python=${PYTHON3:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed, $python is $("$python" -V 2>&1); set PYTHON3 to another one" >&2
    exit 1
}

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "$python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "Installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 python3-venv >/dev/null
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making $venv"
    "$python" -m venv --clear "$venv"
fi
