#!/usr/bin/env bash
# Builds the execution environment with the local engine, as sparkfleet-lab/ee:latest, and uses it as a controller would.
# Nothing is pulled and no step has a network. The lab's image replaces the base image of the definition and holds the packages
# and wheels that the build needs; ansible-builder makes everything else from the definition.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

base="${lab_base}:$(. /etc/os-release && echo "${VERSION_CODENAME}")"
stocked=sparkfleet-lab/ee-base:latest
image=sparkfleet-lab/ee:latest
work="${lab_cache}/ee"
stock="${work}/stock"
apt="${lab_cache}/depot/www/apt"
log="${lab_cache}/image-ee.log"
bin="${lab_root}/.venv/bin"
mkdir -p "${stock}"

# made DIRECTORY INPUTS: was it made from these inputs?
made() { [ "$(cat "$1/.inputs" 2>/dev/null || true)" = "$2" ]; }

in_base() { docker run --rm --network none --label "${lab_label}=build" "$@"; }

packages() {
    local wanted inputs
    mapfile -t wanted < <("${bin}/python" "${lab_dir}/ee/needs.py" apt)
    inputs="$(sha256sum "${apt}/depot.asc" | cut -d' ' -f1) ${wanted[*]}"
    made "${stock}/apt" "${inputs}" && return
    rm -rf "${stock}/apt"
    mkdir -p "${stock}/apt/distribution"
    # Only the base image knows which packages it lacks.
    in_base -v "${apt}:/lab/apt:ro" -v "${stock}/apt/distribution:/out" -e DEBIAN_FRONTEND=noninteractive "${base}" sh -eu -c '
        echo "deb [signed-by=/lab/apt/depot.asc] copy:/lab/apt/distribution ./" >/etc/apt/sources.list
        apt-get -qq update -o Acquire::Languages=none
        apt-get -qq -y --download-only --no-install-recommends -o APT::Sandbox::User= install "$@"
        cp /var/cache/apt/archives/*.deb /out/
        chown -R "$0" /out' "$(id -u):$(id -g)" "${wanted[@]}" >&2 || fail "expected packages for ${wanted[*]}, see above" \
        "name in molecule/lab/packages.txt what the lab does not fetch yet"
    cp "${apt}/depot.asc" "${stock}/apt/"
    cp "${apt}/distribution"/{InRelease,Packages} "${stock}/apt/distribution/"
    echo "${inputs}" >"${stock}/apt/.inputs"
}

wheels() {
    local version wanted inputs
    version=$(in_base "${base}" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    mapfile -t wanted < <("${bin}/python" "${lab_dir}/ee/needs.py" pip)
    inputs="${version} ${wanted[*]}"
    made "${stock}/wheels" "${inputs}" && return
    rm -rf "${stock}/wheels"
    mkdir -p "${stock}/wheels"
    "${bin}/pip" download --quiet --only-binary=:all: --python-version "${version}" --dest "${stock}/wheels" "${wanted[@]}" ||
        fail "pip could not download ${wanted[*]}" "check the package index that pip is configured with"
    echo "${inputs}" >"${stock}/wheels/.inputs"
}

# build IMAGE INPUTS CONTEXT OPTION...   with a Dockerfile on standard input
build() {
    local name=$1 label=$2 context=$3
    shift 3
    docker build --network none --label "${lab_label}=image" --label "${lab_label}.inputs=${label}" --tag "${name}" "$@" \
        --file - "${context}" >"${log}" 2>&1 || {
        tail -n 20 "${log}" >&2
        fail "${name} could not be built" "read ${log}"
    }
}

docker image inspect "${base}" >/dev/null 2>&1 || fail "expected the image ${base}, seen none" "make ee"
packages
wheels
inputs=$({
    docker image inspect --format '{{ .Id }}' "${base}"
    cat "${stock}"/{apt,wheels}/.inputs
    sed -n '/^FROM/,/^STOCK/p' "${BASH_SOURCE[0]}"
} | sha256sum | cut -d' ' -f1)
fresh "${stocked}" "${inputs}" || sed "s|^FROM .*|FROM ${base}|" <<'STOCK' | build "${stocked}" "${inputs}" "${stock}"
FROM base
COPY . /lab
RUN echo 'deb [signed-by=/lab/apt/depot.asc] copy:/lab/apt/distribution ./' >/etc/apt/sources.list
# Most of Ansible is never imported here, and compiling it would take longer than everything else.
RUN printf '[global]\nno-index = true\nfind-links = /lab/wheels\n[install]\ncompile = false\n' >/etc/pip.conf
STOCK

rm -f "${work}"/*.tar.gz
"${bin}/ansible-galaxy" collection build --output-path "${work}" "${lab_root}" >&2
inputs=$({
    docker image inspect --format '{{ .Id }}' "${stocked}"
    tar -xzOf "$(compgen -G "${work}/*.tar.gz")" FILES.json MANIFEST.json
    fingerprint "${lab_dir}/ee" "${lab_dir}/ee.sh" "${lab_root}/collections" "${lab_root}/requirements/dev.txt"
} | sha256sum | cut -d' ' -f1)
if fresh "${image}" "${inputs}" && made "${work}" "${inputs}"; then
    say "${image}: unchanged"
    exit 0
fi
cp "${lab_root}/execution-environment/execution-environment.yml" "${work}/"
rm -rf "${work}/context"
"${bin}/ansible-builder" create --file "${work}/execution-environment.yml" --context "${work}/context" \
    --output-filename Containerfile >&2
build "${image}" "${inputs}" "${work}/context" --build-arg "EE_BASE_IMAGE=${stocked}" <"${work}/context/Containerfile"
"${bin}/pytest" -q -p no:cacheprovider "${lab_dir}/ee" >&2 || fail "${image} does not work, see above" \
    "docker run --rm -it --network none ${image} bash"
echo "${inputs}" >"${work}/.inputs"
say "${image}: built and used, $(docker image inspect --format '{{ .Size }}' "${image}" | awk '{ printf "%d MB", $1 / 1e6 }')"
