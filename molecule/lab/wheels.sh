#!/usr/bin/env bash
# Fetches the wheels of a Spark's Python environment (the requirements of role prerequisites, with dependencies) for the
# distribution's Python, and publishes them as a package index (PEP 503) in the depot.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

index="${lab_cache}/depot/www/pypi/simple"
packages="${lab_root}/plugins/module_utils/_common/packages.py"
stamp="${index}/.inputs"
# A lab Spark uses the distribution's Python, which may differ from this environment's.
python=$(dpkg-deb -f "$(compgen -G "${lab_cache}/depot/www/apt/distribution/python3_*.deb")" Version | cut -d. -f1,2)

# A Spark installs just these files, by their hashes.
requirements=$("${lab_root}/.venv/bin/python" - "${packages}" <<'PYTHON'
import runpy, sys
print("\n".join(runpy.run_path(sys.argv[1])["HASHES"]))
PYTHON
)
inputs=$({ echo "${python} ${requirements}"; fingerprint "${lab_dir}/wheels.sh"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "${stamp}" 2>/dev/null || true)" = "${inputs}" ]; then
    say "wheels: unchanged"
    exit 0
fi
rm -rf "${index}"
mkdir -p "${index}"
work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT
echo "${requirements}" >"${work}/requirements.txt"
"${lab_root}/.venv/bin/pip" download --quiet --only-binary=:all: --python-version "${python}" --dest "${work}" \
    --require-hashes --requirement "${work}/requirements.txt" ||
    fail "pip could not download the packages of ${packages}" "check the package index that pip is configured with"
for wheel in "${work}"/*.whl; do
    name=$(basename "${wheel}" | cut -d- -f1 | tr '[:upper:]_.' '[:lower:]--')
    mkdir -p "${index}/${name}"
    mv "${wheel}" "${index}/${name}/"
done
echo "${inputs}" >"${stamp}"
say "wheels: $(find "${index}" -name '*.whl' | wc -l) for Python ${python}"
