#!/usr/bin/env bash
# Writes the hashes of every requirements file anew. Change a version in one of them, then run this.
# Needs uv. The hashes are those of all files of a release, so that they hold on every platform.
set -euo pipefail
cd "$(dirname "$0")/.."
hashes() {
    uv pip compile --no-config --quiet --generate-hashes --no-annotate --python-version 3.11 \
        --universal --custom-compile-command .ci/hash_requirements.sh "$@"
}
for file in .ci/requirements-lint.txt python/requirements-build.txt python/requirements-test.txt \
    models/tests/requirements.txt tests/end_to_end/ezkl/requirements.txt; do
    hashes "$file" -o "$file"
done
# Installed beside models/make/requirements.txt, so with the same versions.
hashes --constraint models/make/requirements.txt --constraint python/requirements-test.txt \
    --no-emit-package hf-xet python/requirements-lm-eval.txt -o python/requirements-lm-eval.txt
# A whole list: torch would ask for CUDA libraries of several GB.
hashes --no-deps models/make/requirements.txt -o models/make/requirements.txt
