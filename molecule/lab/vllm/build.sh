#!/usr/bin/env bash
# Makes the lab's vLLM image and its models, and puts them where the depot serves them:
#   registry   vllm/vllm-openai:gemma4-0505-arm64-cu130     real vLLM, CPU build, trimmed; plays the preview image
#              vllm/vllm-openai:v0.30.0                     the same with its own gemma4_mtp.py; plays a release
#   hub        the recipe's body and draft, the vanilla body, which has the same weights, and
#              sparkfleet-lab/never-accepted-assistant, a draft at 0 %
#   raw        gemma4_mtp.py at the recipe's commit: the untouched file of the vLLM that the image is made of
# Each is skipped when nothing it is made from has changed and it is still where it belongs.
#
#   LAB_REGISTRY           the depot's registry, host:port                 (localhost:5005)
#   LAB_HUB, LAB_RAW       what the depot serves as Hub and as raw files   (.cache/lab/depot/hub, …/www/raw)
#   LAB_ACCEPTANCE         share of drafts that are accepted               (0.69)
#   LAB_TORCH_INDEX_URL    package index with CPU builds of PyTorch, asked when the index that pip is configured
#                          with has none: on x86-64 a plain `torch` is the CUDA build, 3 GB that a CPU cannot use
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

here="${lab_dir}/vllm"
work="${lab_cache}/vllm"
hub="${LAB_HUB:-${lab_cache}/depot/hub}"
raw="${LAB_RAW:-${lab_cache}/depot/www/raw}"
acceptance="${LAB_ACCEPTANCE:-0.69}"

# The recipes' own names (recipes/huihui-gemma4-mtp-n1.yml, …-release.yml, gemma4-mtp-n4.yml).
preview=vllm/vllm-openai:gemma4-0505-arm64-cu130
release=vllm/vllm-openai:v0.30.0
body=coolthor/Huihui-gemma-4-26B-A4B-it-abliterated-FP8-Dynamic
body_commit=c4bbb7689dc16de4aaa468647625a5a02f98e22f
draft=google/gemma-4-26B-A4B-it-assistant
vanilla=RedHatAI/gemma-4-26B-A4B-it-FP8-Dynamic
never=sparkfleet-lab/never-accepted-assistant
patch=vllm-project/vllm/27e0057aeda6bc443069c20fdf2f3cc95ed892f3/vllm/model_executor/models/gemma4_mtp.py
torch=2.13.0
max_model_len=8192

base="${lab_base}:$(. /etc/os-release && echo "${VERSION_CODENAME}")"
python=python3
[ ! -x "${lab_root}/.venv/bin/python" ] || python="${lab_root}/.venv/bin/python"
mkdir -p "${work}" "${hub}" "${raw}"

in_base() { docker run --rm --network none --user "$(id -u):$(id -g)" --label "${lab_label}=build" "$@"; }

# download PYTHON GLIBC REQUIREMENT...   wheels for the base's Python, whatever Python runs pip
download() {
    local version=$1 glibc=$2 machine platforms=() minor
    shift 2
    machine=$(uname -m)
    for minor in $(seq 5 "${glibc#*.}"); do platforms+=(--platform "manylinux_2_${minor}_${machine}"); done
    for minor in manylinux2014 manylinux2010 manylinux1 linux; do platforms+=(--platform "${minor}_${machine}"); done
    "${python}" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version "${version}" "${platforms[@]}" --dest "${work}/wheels" "$@" >"${work}/download.log" 2>&1
}

wheels() {
    local version=$1 glibc=$2 want="torch==${torch}+cpu" inputs
    inputs="${version} ${glibc} ${want} $(fingerprint "${here}/requirements.txt")"
    [ "$(cat "${work}/wheels.inputs" 2>/dev/null || true)" != "${inputs}" ] || return 0
    # Every file in this directory becomes part of the image: none may be left from another time.
    rm -rf "${work}/wheels" "${work}/wheels.inputs"
    download "${version}" "${glibc}" -r "${here}/requirements.txt" || {
        tail -n 5 "${work}/download.log" >&2
        fail "the wheels of vLLM could not be fetched" "pip reaches a package index? read ${work}/download.log"
    }
    if [ -n "${LAB_TORCH_INDEX_URL:-}" ]; then
        download "${version}" "${glibc}" --index-url "${LAB_TORCH_INDEX_URL}" "${want}"
    else
        # A configured index may carry the CPU build; PyTorch's own index of them is the next place to look.
        download "${version}" "${glibc}" "${want}" ||
            download "${version}" "${glibc}" --index-url https://download.pytorch.org/whl/cpu "${want}"
    fi || {
        tail -n 5 "${work}/download.log" >&2
        fail "no index has ${want}" "name one that has CPU builds of PyTorch: LAB_TORCH_INDEX_URL=https://…"
    }
    echo "${inputs}" >"${work}/wheels.inputs"
}

# A library of the distribution that vLLM's kernels are linked with, and the base does not have.
numa() {
    local into=$1 debs="${work}/debs"
    rm -rf "${debs}" && mkdir -p "${debs}"
    (cd "${debs}" && { apt-get download -qq libnuma1 || { as_root apt-get update -qq && apt-get download -qq libnuma1; }; }) 2>"${work}/numa.log" ||
        fail "libnuma1 could not be fetched" "check that apt-get update works on this machine" "read ${work}/numa.log"
    dpkg-deb --extract "${debs}"/libnuma1_*.deb "${debs}/tree"
    mkdir -p "${into}/usr/lib" && cp -a "${debs}/tree/usr/lib/." "${into}/usr/lib/"
    rm -rf "${debs}"
}

image() {
    local inputs version glibc tree="${work}/tree" packages name started=${SECONDS}
    docker image inspect "${base}" >/dev/null 2>&1 || fail "there is no image ${base}" "make it with ${lab_dir}/images.sh base"
    inputs=$({
        docker image inspect --format '{{ .Id }}' "${base}"
        fingerprint "${here}/requirements.txt" "${here}/image.py" "${here}/build.sh"
        # vLLM's kernels are taken for the processor that is here.
        grep -m1 '^flags' /proc/cpuinfo || true
    } | sha256sum | cut -d' ' -f1)
    if [ "$(cat "${work}/image.inputs" 2>/dev/null || true)" = "${inputs}" ] && [ -e "${work}/image/release.json" ]; then
        return
    fi
    rm -rf "${work}/image.inputs" "${tree}"
    apt_install binutils
    read -r version glibc < <(in_base "${base}" python3 -c '
import platform, sys
print("%d.%d" % sys.version_info[:2], platform.libc_ver()[1])')
    wheels "${version}" "${glibc}"
    say "vLLM: wheels fetched ($((SECONDS - started)) s)"

    mkdir -p "${work}/patch"
    "${python}" "${here}/image.py" unpack --wheels "${work}/wheels" --tree "${tree}" --patch "${work}/patch/gemma4_mtp.py"
    numa "${tree}"
    packages=usr/local/lib/python3.12/dist-packages
    if [ "${version}" != 3.12 ]; then
        # The recipe mounts its patch below python3.12; another Python finds the packages there by this line.
        mkdir -p "${tree}/usr/local/lib/python${version}/dist-packages"
        echo "/${packages}" >"${tree}/usr/local/lib/python${version}/dist-packages/recipe.pth"
    fi
    # Compiled once here, not in every container: it halves the time to ready. All but what the recipe patches:
    # Python takes a compiled file for current when size and time of the source agree, and a patch could agree.
    in_base -v "${tree}:/tree" "${base}" python3 -m compileall -q -j 0 --invalidation-mode timestamp \
        -s /tree "/tree/${packages}" >"${work}/compile.log" ||
        fail "the packages could not be compiled" "read ${work}/compile.log"
    rm "${tree}/${packages}"/vllm/model_executor/models/__pycache__/gemma4_mtp.*
    say "vLLM: unpacked, trimmed and compiled ($((SECONDS - started)) s)"
    name=sparkfleet-lab-build-vllm-base
    docker rm -f "${name}" >/dev/null 2>&1 || true
    docker create --name "${name}" --label "${lab_label}=build" "${base}" >/dev/null
    docker export "${name}" >"${work}/base.tar"
    docker rm -f "${name}" >/dev/null
    "${python}" "${here}/image.py" pack --base "${work}/base.tar" --tree "${tree}" --image "${work}/image" \
        --patch "${work}/patch/gemma4_mtp.py" --label "${lab_label}=image" --label "${lab_label}.inputs=${inputs}" >&2
    rm -rf "${tree}" "${work}/base.tar"
    echo "${inputs}" >"${work}/image.inputs"
    say "vLLM: image built ($((SECONDS - started)) s)"
}

# publish MANIFEST REFERENCE
publish() {
    local manifest=$1 reference=$2 digest seen started=${SECONDS}
    digest="sha256:$(sha256sum "${work}/image/${manifest}" | cut -d' ' -f1)"
    seen=$(curl -s --noproxy '*' --head --max-time 10 -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        "http://${lab_registry}/v2/${reference%:*}/manifests/${reference##*:}" |
        tr -d '\r' | sed -n 's/^docker-content-digest: //Ip') || true
    if [ "${seen}" = "${digest}" ]; then
        say "${reference}: unchanged"
        return
    fi
    "${python}" "${here}/image.py" publish --image "${work}/image" --manifest "${manifest}" \
        --registry "${lab_registry}" --reference "${reference}" >&2
    say "${reference}: published ($((SECONDS - started)) s)"
}

models() {
    local inputs
    inputs=$({
        echo "${acceptance} ${max_model_len} ${body} ${body_commit} ${draft} ${vanilla} ${never}"
        fingerprint "${here}/weights.py"
    } | sha256sum | cut -d' ' -f1)
    if [ "$(cat "${work}/models.inputs" 2>/dev/null || true)" = "${inputs}" ] &&
        [ -e "${hub}/${body}/config.json" ] && [ -e "${hub}/${draft}/config.json" ] &&
        [ -e "${hub}/${vanilla}/config.json" ] && [ -e "${hub}/${never}/config.json" ]; then
        say "models: unchanged"
        return
    fi
    rm -rf "${hub:?}/${body}" "${hub:?}/${draft}" "${hub:?}/${vanilla}" "${hub:?}/${never}"
    "${python}" "${here}/weights.py" --max-model-len "${max_model_len}" --acceptance "${acceptance}" \
        --body "${hub}/${body}" --draft "${hub}/${draft}" >&2
    "${python}" "${here}/weights.py" --max-model-len "${max_model_len}" --body "${hub}/${vanilla}" >&2
    "${python}" "${here}/weights.py" --max-model-len "${max_model_len}" --acceptance 0 --draft "${hub}/${never}" >&2
    printf '{"commit": "%s"}\n' "${body_commit}" >"${hub}/${body}/.hub.json"
    echo "${inputs}" >"${work}/models.inputs"
}

image
publish preview.json "${preview}"
publish release.json "${release}"
models
mkdir -p "${raw}/$(dirname "${patch}")"
cmp -s "${work}/patch/gemma4_mtp.py" "${raw}/${patch}" || cp "${work}/patch/gemma4_mtp.py" "${raw}/${patch}"
