#!/usr/bin/env bash
# Publishes what recipe/stub.yml names: the stub of the vLLM image in the depot's registry as sparkfleet-lab/stub:1, the
# same under another digest as :2, the same as an index with an attestation as :attested, two tiny models and a patch.
# No other recipe uses these names.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

here="${lab_dir}/stub"
image=sparkfleet-lab/stub
base="${lab_base}:$(. /etc/os-release && echo "${VERSION_CODENAME}")"
log="${lab_cache}/image-stub.log"
hub="${lab_cache}/depot/hub/sparkfleet-lab"
raw="${lab_cache}/depot/www/raw/sparkfleet-lab/stub/5770b00000000000000000000000000000000001/vllm/model_executor/models"
python=python3
[ ! -x "${lab_root}/.venv/bin/python" ] || python="${lab_root}/.venv/bin/python"

# A lock that pins the former image, models or patch would rightly refuse the new ones.
anew() { rm -f "${lab_root}"/molecule/{*,lab/*}/lab-locks/stub*.lock.yml; }

# build TAG LABEL DIRECTORY, with a Dockerfile on standard input
build() {
    docker build --network none --label "${lab_label}.inputs=$2" --tag "$1" --file - "$3" >"${log}" 2>&1 || {
        tail -n 20 "${log}" >&2
        fail "$1 could not be built" "read ${log}"
    }
    anew
}

push() {
    # Layers that the registry has are not sent again.
    docker tag "$1" "${lab_registry}/$1"
    docker push "${lab_registry}/$1" >"${log}" 2>&1 || {
        tail -n 5 "${log}" >&2
        fail "$1 could not be pushed to ${lab_registry}" "does the depot run? docker logs sparkfleet-lab-depot"
    }
}

inputs=$({
    docker image inspect --format '{{ .Id }}' "${base}"
    fingerprint "${here}"/{Dockerfile,gemma4_mtp.py,server.py,vllm}
} | sha256sum | cut -d' ' -f1)
fresh "${image}:1" "${inputs}" || sed "s|^ARG BASE=.*|ARG BASE=${base}|" "${here}/Dockerfile" | build "${image}:1" "${inputs}" "${here}"
fresh "${image}:2" "${inputs}" || printf 'FROM %s\nLABEL sparkfleet.lab.edition=2\n' "${image}:1" | build "${image}:2" "${inputs}" "${here}"
push "${image}:1"
push "${image}:2"
"${python}" "${here}/attest.py" "http://${lab_registry}" "${image}" 2 attested >"${log}" 2>&1 || {
    tail -n 5 "${log}" >&2
    fail "${image}:attested could not be put into ${lab_registry}" "does the depot run? docker logs sparkfleet-lab-depot"
}

inputs=$(fingerprint "${lab_dir}/vllm/weights.py")
if [ "$(cat "${lab_cache}/stub-models.inputs" 2>/dev/null || true)" != "${inputs}" ] || ! [ -e "${hub}/stub-draft/config.json" ]; then
    anew
    rm -rf "${hub}"/stub-{body,draft}
    "${python}" "${lab_dir}/vllm/weights.py" --max-model-len 4096 --body "${hub}/stub-body" --draft "${hub}/stub-draft" >&2
    echo "${inputs}" >"${lab_cache}/stub-models.inputs"
fi

if ! cmp -s "${here}/recipe/gemma4_mtp.py" "${raw}/gemma4_mtp.py"; then
    anew
    mkdir -p "${raw}"
    cp "${here}/recipe/gemma4_mtp.py" "${raw}/"
fi
say "${image}: published, with its models and its patch"
