#!/bin/sh
# Makes and fills .venv in the current folder: venv.sh PYTHON (cpu|cuda). The Makefile calls it.
# .venv/complete is written last and says for which folder and Python the environment is good: without it, or where
# it tells of another place, .venv is made anew. So neither an interrupted install nor a moved checkout counts as done.
set -eu
python=$1
torch=$2
cpu_index=https://download.pytorch.org/whl/cpu

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || stop \
    "There is no working Python under the name '$python', and normlab needs Python 3.11 or newer." \
    "Debian or Ubuntu:        sudo apt install python3 python3-venv" \
    "If it has another name:  make book PYTHON=/path/to/python3.12"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || stop \
    "normlab needs Python 3.11 or newer, and '$python' is Python $version." \
    "Debian 12, Ubuntu 24.04 and later have it:  sudo apt install python3 python3-venv" \
    "If a newer one is installed, name it:       make book PYTHON=python3.12"

"$python" -c 'import venv, ensurepip' 2>/dev/null || stop \
    "Python $version lacks its venv module, which makes the environment of this project." \
    "Debian or Ubuntu:  sudo apt install python${version%.*}-venv"

case $torch in
cpu | cuda) ;;
*) stop "TORCH is either cpu (the small build, the default) or cuda, not '$torch'." ;;
esac

complete="$(pwd -P) Python ${version%.*}"
if [ "$(cat .venv/complete 2>/dev/null)" = "$complete" ]; then
    echo "requirements.txt or pyproject.toml changed: bringing .venv up to date."
else
    if [ -e .venv ]; then
        echo ".venv is unfinished, or was made for another folder or Python: making it anew."
    else
        echo "Making .venv with Python $version. The downloads take some minutes, this once."
    fi
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f .venv/complete
PIP_DISABLE_PIP_VERSION_CHECK=1
PIP_NO_INPUT=1
export PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT
pip() { .venv/bin/python -m pip "$@"; }

if [ "$torch" = cpu ]; then
    pin=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)
    echo "PyTorch: the CPU build of $pin"
    # One short try: without internet, or behind a wall, this must not hang.
    if ! pip install --quiet --no-deps --retries 0 --timeout 15 "$pin" --index-url "$cpu_index" 2>.venv/torch.log; then
        echo "The CPU build could not be had from $cpu_index (why: .venv/torch.log)."
        echo "Taking PyPI's build instead. On Linux that one brings CUDA along, which is gigabytes."
    fi
fi
echo "The packages of requirements.txt"
pip install --quiet -r requirements.txt || stop \
    "The packages of requirements.txt could not all be installed; pip says why above." \
    "This needs the internet. When it is there, run the same command again."
# setuptools is pinned and installed by now, so normlab needs no download of a builder.
pip install --quiet --no-deps --no-build-isolation -e .
# Each kernel would warn that it talks over TCP, once a chapter: it does so on this machine alone.
mkdir -p .venv/etc/ipython
echo 'c.IPKernelApp.log_level = 40' >.venv/etc/ipython/ipython_kernel_config.py
printf '%s\n' "$complete" >.venv/complete
