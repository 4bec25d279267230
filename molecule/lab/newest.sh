#!/usr/bin/env bash
# Makes a second Python environment in .cache/newest, with the newest tested Ansible and Python.
#   newest.sh [DIRECTORY]     uses another directory
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

requirements=requirements/newest.txt
version=$(sed -n '1s/.*(Python \(.*\))\.$/\1/p' "${lab_root}/${requirements}")

# Check that it runs: a name on PATH may be a shim for a version that is not selected.
runs() { [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "${version}" ]; }

candidates=("${NEWEST_PYTHON:-python${version}}")
if [ -z "${NEWEST_PYTHON:-}" ] && command -v pyenv >/dev/null; then
    mapfile -t -O 1 candidates < <(compgen -G "$(pyenv root)/versions/${version}*/bin/python${version}" | sort -V)
fi
for python in "${candidates[@]}"; do
    if runs "${python}"; then
        exec "${lab_dir}/venv.sh" "${python}" "${1:-.cache/newest}" "${requirements}"
    fi
done
fail "expected Python ${version} for ${requirements}, seen none that runs: ${candidates[*]}" \
    "install it and name it: make NEWEST_PYTHON=/path/to/python${version} ..." "or leave this out: make lint unit ee"
