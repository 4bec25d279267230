#!/usr/bin/env bash
# Makes .cache/next: .cache/newest with a newer pre-release of Ansible, if the package index has one.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

newest="${lab_root}/.cache/newest/bin"
next="${lab_root}/.cache/next"
release=$("${newest}/python" -c 'import ansible.release as r; print(r.__version__)')

# The first line is "ansible-core (VERSION)", with the newest version for this Python.
found=$("${newest}/pip" index versions --disable-pip-version-check --pre ansible-core 2>/dev/null | sed -n '1s/.*(\(.*\))$/\1/p' || true)
newer() { "${newest}/python" -c 'import sys; from packaging.version import Version as V; sys.exit(not (V(sys.argv[1]) > V(sys.argv[2]) and V(sys.argv[1]).is_prerelease))' "$@"; }
if [ -z "${found}" ] || ! newer "${found}" "${release}"; then
    rm -rf "${next}"
    say "next: no pre-release of ansible-core above ${release} in the package index${found:+ (newest: ${found})}, so none is tried"
    exit 0
fi
have() { [ "$("${next}/bin/python" -c 'import ansible.release as r; print(r.__version__)' 2>/dev/null)" = "${found}" ]; }
have || rm -f "${next}/.requirements"
"${lab_dir}/newest.sh" .cache/next
# The package ansible requires its own release of ansible-core; only its collections are needed here.
have || "${next}/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps "ansible-core==${found}" || fail \
    "pip could not install ansible-core ${found}" "check the package index that pip is configured with"
say "next: ansible-core ${found}"
