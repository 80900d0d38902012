#!/usr/bin/env bash
# A Python environment with torch, transformers and peft, small enough for CI: usage: torch_env.sh
# FOLDER
#
# torch's wheel on Linux asks for CUDA libraries of several GB. They are left out, and empty ones
# stand in for them: only for tests, on machines without such a device. Needs Python 3.11, gcc and
# readelf.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv --clear "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes -r "$here/../models/make/requirements.txt"
"$1/bin/python" "$here/torch_without_cuda.py"
"$1/bin/python" -c 'import torch; print("torch", torch.__version__)'
