#!/usr/bin/env bash
# ansible-test sanity, on what a release holds.
#   sanity.sh [DIRECTORY [ARGUMENTS]]     of ansible-test; default .venv/bin, and arguments as in `--test pylint plugins/modules/spark_info.py`
# It makes a Python environment for each kind of test once, in .cache/sanity/home, of the versions that ansible-core pins, and needs
# a package index for that. After that it needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=${PWD}
bin=$(cd "${1:-.venv/bin}" && pwd)
shift "$(($# > 0))"

version=$("${bin}/ansible-test" --version | grep -oE '[0-9.]+$')
work="${root}/.cache/sanity/${version}"
collection="${work}/ansible_collections/sparkfleet/vllm"
export PATH="${bin}:${PATH}"
mkdir -p "${work%/*}"
exec 9>"${work}.lock"
flock 9
rm -rf "${work}"
mkdir -p "${collection}/tests"
ansible-galaxy collection build --output-path "${work}" >/dev/null
tar -xf "${work}"/*.tar.gz -C "${collection}"
cp -r tests/config.yml tests/sanity "${collection}/tests"
# It asks the next repository above for the files.
git init --quiet "${collection}"

# Its environments are in the home directory. Settings of pip stay the user's.
export XDG_CONFIG_HOME=${XDG_CONFIG_HOME:-${HOME}/.config} HOME=${root}/.cache/sanity/home
mkdir -p "${HOME}/.ansible/test/cache"
# It would download pip (by this name, for core 2.19, 2.20 and 2.21). Python has one.
export PIP_QUIET=1
for pip in 24_2 25_2; do
    printf 'import ensurepip\n\nensurepip.bootstrap()\n' >"${HOME}/.ansible/test/cache/get_pip_${pip}.py"
done

cd "${collection}"
python=$("${bin}/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# `make lint` has read the change log and what is YAML by then; a test for Windows needs PowerShell.
exec ansible-test sanity --python "${python}" --color no --skip-test changelog --skip-test yamllint --skip-test pslint "$@"
