#!/usr/bin/env bash
# Fetches the wheels of a Spark's Python environment (the requirements of role prerequisites, with dependencies) for the
# distribution's Python, and publishes them as a package index (PEP 503) in the depot.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

index="${lab_cache}/depot/www/pypi/simple"
defaults="${lab_root}/roles/prerequisites/defaults/main.yml"
stamp="${index}/.inputs"
# A lab Spark uses the distribution's Python, which may differ from this environment's.
python=$(dpkg-deb -f "$(compgen -G "${lab_cache}/depot/www/apt/distribution/python3_*.deb")" Version | cut -d. -f1,2)

requirements=$("${lab_root}/.venv/bin/python" - "${defaults}" <<'PYTHON'
import sys, yaml
print("\n".join(yaml.safe_load(open(sys.argv[1]))["prerequisites_python_requirements"]))
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
# shellcheck disable=SC2086 # one word a requirement
"${lab_root}/.venv/bin/pip" download --quiet --only-binary=:all: --python-version "${python}" --dest "${work}" ${requirements} ||
    fail "pip could not download ${requirements//$'\n'/, }" "check the package index that pip is configured with"
for wheel in "${work}"/*.whl; do
    name=$(basename "${wheel}" | cut -d- -f1 | tr '[:upper:]_.' '[:lower:]--')
    mkdir -p "${index}/${name}"
    mv "${wheel}" "${index}/${name}/"
done
echo "${inputs}" >"${stamp}"
say "wheels: $(find "${index}" -name '*.whl' | wc -l) for Python ${python}"
