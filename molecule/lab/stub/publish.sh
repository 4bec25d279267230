#!/usr/bin/env bash
# Builds the stub of the vLLM image and puts it into the depot's registry as sparkfleet-lab/stub:1, under a name of
# its own: nothing that a recipe names ever resolves to it.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

image=sparkfleet-lab/stub:1
base="${lab_base}:$(. /etc/os-release && echo "${VERSION_CODENAME}")"
log="${lab_cache}/image-stub.log"

inputs=$({
    docker image inspect --format '{{ .Id }}' "${base}"
    fingerprint "${lab_dir}/stub"
} | sha256sum | cut -d' ' -f1)
if ! fresh "${image}" "${inputs}"; then
    docker build --network none --build-arg "BASE=${base}" --label "${lab_label}.inputs=${inputs}" \
        --tag "${image}" "${lab_dir}/stub" >"${log}" 2>&1 || {
        tail -n 20 "${log}" >&2
        fail "${image} could not be built" "read ${log}"
    }
fi
# Layers that the registry has are not sent again.
docker tag "${image}" "${lab_registry}/${image}"
docker push "${lab_registry}/${image}" >"${log}" 2>&1 || {
    tail -n 5 "${log}" >&2
    fail "${image} could not be pushed to ${lab_registry}" "does the depot run? docker logs sparkfleet-lab-depot"
}
say "${image}: published"
