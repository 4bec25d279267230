#!/usr/bin/env bash
# The controller's Python environment, from the pinned requirements, and the checkout as a collection.
#   venv.sh [PYTHON [DIRECTORY [REQUIREMENTS]]]     Python >= 3.11; default python3 .venv requirements/dev.txt
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python=${1:-python3}
venv="${lab_root}/${2:-.venv}"
requirements="${3:-requirements/dev.txt}"
stamp="${venv}/.requirements"
collection="${lab_root}/.cache/collections/ansible_collections/sparkfleet/vllm"

mkdir -p "${collection%/*}"
[ -e "${collection}" ] || ln -sfn ../../../.. "${collection}"

"${python}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail \
    "expected Python >= 3.11, seen $("${python}" --version 2>&1 || echo "no ${python}")" "make PYTHON=/path/to/python3.11 ..."
inputs=$({ "${python}" --version; fingerprint "${lab_root}/${requirements}"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "${stamp}" 2>/dev/null || true)" = "${inputs}" ] && "${venv}/bin/python" -c '' 2>/dev/null; then
    say "venv: unchanged"
    exit 0
fi
# Debian and Ubuntu keep ensurepip in a separate package.
"${python}" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv "python$("${python}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
"${venv}/bin/python" -c '' 2>/dev/null || "${python}" -m venv --clear "${venv}"
# Do not compile now: most of it is never imported, and the first import compiles the rest.
"${venv}/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "${lab_root}/${requirements}" || fail \
    "pip could not install ${requirements}" "check the package index that pip is configured with"
echo "${inputs}" >"${stamp}"
say "venv: ansible-core $("${venv}/bin/python" -c 'import ansible.release as r; print(r.__version__)'), $("${python}" --version)"
