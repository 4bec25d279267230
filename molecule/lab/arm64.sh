#!/usr/bin/env bash
# Tries what the collection runs on a Spark under user emulation of aarch64. docs/aarch64.md says what that shows and what it
# cannot. Images, all for linux/arm64:
#   sparkfleet-lab/arm64:<suite>     a distribution with Python, its packages unpacked
#   sparkfleet-lab/arm64:modules     the environment of the modules, made by python_environment from wheels alone
#   sparkfleet-lab/arm64:stub        the stub of vLLM (stub/)
#   sparkfleet-lab/arm64:unit        the modules' environment beside one that the unit tests need
# arm64.sh [PART...]     fleet, server, unit; all of them by default
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

here="${lab_dir}/arm64"
bin="${lab_root}/.venv/bin"
work="${lab_cache}/arm64"
log="${lab_cache}/image-arm64.log"
image=sparkfleet-lab/arm64
network=sparkfleet-lab-arm64
registered=/proc/sys/fs/binfmt_misc/sparkfleet-lab-aarch64
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
export ANSIBLE_CONFIG="${lab_root}/ansible.cfg" ANSIBLE_COLLECTIONS_PATH="${lab_root}/.cache/collections"
# A module that starts under emulation may take longer than the minute that an answer may take. A time limit of the task replaces that.
export ANSIBLE_TASK_TIMEOUT=1800
mkdir -p "${work}"
: >"${log}"
# In this order. DGX OS has Python 3.12, which no release of Debian has.
suites=(trixie bookworm)
declare -A python_of_suite=([trixie]=python3.13 [bookworm]=python3.11)

# The commands in this list undo everything at the end, last first, whatever happened.
undo=()
finish() {
    local index
    for ((index = ${#undo[@]} - 1; index >= 0; index--)); do
        eval "${undo[index]}" || true
    done
}
trap finish EXIT

# The kernel runs aarch64 programs by qemu as long as this script runs. With the flag F it has opened qemu before any container
# has its own root directory.
emulate() {
    [ "$(uname -m)" != aarch64 ] || return 0
    apt_install qemu-user-static arch-test
    if [ ! -e "${registered%/*}/register" ]; then
        as_root mount -t binfmt_misc binfmt_misc "${registered%/*}"
        undo+=("as_root umount '${registered%/*}'")
    fi
    if [ ! -e "${registered}" ]; then
        sed "s/^:[^:]*:/:${registered##*/}:/" /usr/lib/binfmt.d/qemu-aarch64.conf | as_root tee "${registered%/*}/register" >/dev/null
        undo+=("echo -1 | as_root tee '${registered}' >/dev/null")
    fi
    grep -q '^flags:.*F' "${registered}" || fail "expected qemu for aarch64 with the flag F, seen $(tr '\n' ' ' <"${registered}")" \
        "reinstall qemu-user-static"
}

# Emulation yields to whatever else the machine does.
guest() { docker run --platform linux/arm64 --init --cpu-shares 64 --label "${lab_label}=arm64" "$@"; }

# guest_up NAME OPTION... IMAGE     starts a guest that idles until this script ends
guest_up() {
    local name="sparkfleet-lab-arm64-$1"
    shift
    docker rm --force "${name}" >/dev/null 2>&1 || true
    undo+=("docker rm --force '${name}' >/dev/null 2>&1")
    guest --detach --name "${name}" "$@" sleep infinity >/dev/null
}

# keep NAME IMAGE INPUTS    makes an image of a guest's present state
keep() {
    docker commit --change "LABEL ${lab_label}=arm64 ${lab_label}.inputs=$3" "sparkfleet-lab-arm64-$1" "$2" >/dev/null
    say "$2: made, $(docker image inspect --format '{{ .Architecture }}, {{ .Size }}' "$2" | awk '{ printf "%s %d MB", $1, $2 / 1e6 }')"
}

play() {
    "${bin}/ansible-playbook" -i "${here}/inventory" "${here}/$1.yml" "${@:2}" >>"${log}" 2>&1 || {
        tail -n 40 "${log}" >&2
        fail "molecule/lab/arm64/$1.yml failed on aarch64" "read ${log}"
    }
}

# compile DIRECTORY PREFIX   makes byte code, which is the same on every architecture, with a Python of the same version here, if
# there is one: many times as fast as an emulated one. PREFIX is the beginning of the path that it will not have where it is used.
compile() {
    local python version="${python_of_suite[${suite}]}"
    for python in "${lab_root}/.cache/newest/bin/python" "${version}"; do
        if [ "$("${python}" -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "${version}" ]; then
            as_root "${python}" -m compileall -q -s "$2" -p / "$1" >>"${log}" 2>&1 || true
            return
        fi
    done
    say "no ${version} here: everything is compiled under emulation, which takes minutes"
}

inputs_of() { "${bin}/python" "${lab_dir}/snapshot/inputs.py" "${here}/$1.yml" | (cd "${lab_root}" && xargs sha256sum); }

# The first suite of the mirror in this machine's apt configuration whose signature the installed keyring knows.
choose_suite() {
    # shellcheck disable=SC2016 # apt expands these
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|\(.*debian\/\)$/\1/p' | sort -u | head -n 1)
    [ -n "${mirror}" ] || fail "expected a mirror of Debian in this machine's apt configuration, seen none" "apt-get update" \
        "try this on a machine with Debian"
    for suite in "${suites[@]}"; do
        /usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root download-file "${mirror}dists/${suite}/InRelease" "${work}/InRelease" \
            >>"${log}" 2>&1 && gpgv --quiet --keyring "${keyring}" "${work}/InRelease" >/dev/null 2>>"${log}" && return
        say "${suite}: not there, or not signed by ${keyring}"
    done
    fail "expected one of ${suites[*]} at apt's mirror, signed by ${keyring}, seen none" "apt-get install debian-archive-keyring"
}

# Unpacks packages without running their scripts: those are not under test, and would take four minutes of emulation.
base() {
    local inputs sum
    inputs=$({
        cat "${work}/InRelease"
        sed -n '/^base()/,/^}/p' "${lab_dir}/arm64.sh"
    } | sha256sum | cut -d' ' -f1)
    base="${image}:${suite}"
    if fresh "${base}" "${inputs}"; then
        seen=unchanged
        say "${base}: ${seen}"
        return
    fi
    apt_install mmdebstrap
    as_root rm -rf "${work}/image" "${work}/root"
    mkdir -p "${work}/image"
    as_root mmdebstrap --quiet --mode=root --variant=extract --architectures=arm64 \
        --include=apt,base-files,base-passwd,bash,ca-certificates,coreutils,dash,dpkg,findutils,grep,libc-bin,sed,python3,python3-venv,util-linux \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "${suite}" "${work}/root" "deb [signed-by=${keyring}] ${mirror} ${suite} main" >>"${log}" 2>&1 ||
        fail "${base} could not be made" "read ${log}"
    # Make what is needed of the scripts' work: users, and the certificates without which Debian's pip fails. No image names the
    # mirror.
    as_root sh -eu -c 'cd "$1"
        for one in passwd group; do cp "usr/share/base-passwd/${one}.master" "etc/${one}"; done
        cat usr/share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-certificates.crt
        rm -rf etc/apt etc/hostname etc/resolv.conf var/lib/apt/lists var/cache/apt' sh "${work}/root"
    compile "${work}/root/usr/lib/${python_of_suite[${suite}]}" "${work}/root"
    as_root tar --numeric-owner -C "${work}/root" -c . >"${work}/image/layer.tar"
    # Some engines note their own architecture in an image that they import, whatever --platform says.
    sum=$(sha256sum "${work}/image/layer.tar" | cut -d' ' -f1)
    cat >"${work}/image/config.json" <<CONFIG
{"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:${sum}"]},
 "config": {"Cmd": ["/bin/bash"], "Labels": {"${lab_label}": "arm64", "${lab_label}.inputs": "${inputs}"}}}
CONFIG
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"${base}\"], \"Layers\": [\"layer.tar\"]}]" >"${work}/image/manifest.json"
    tar -C "${work}/image" -c manifest.json config.json layer.tar | docker load >>"${log}" 2>&1
    as_root rm -rf "${work}/image" "${work}/root"
    say "${base}: made"
}

# wheels PLACE REQUIREMENT...   downloads requirements and their dependencies, with this machine's pip and from its index. A
# requirement may also be "--requirement=FILE" or "--constraint=FILE".
wheels() {
    local place="${work}/wheels/$1" one inputs platforms=()
    shift
    inputs="${suite} $* $(for one in "$@"; do [[ ${one} != --*=* ]] || sha256sum <"${one#*=}"; done)"
    [ "$(cat "${place}/.inputs" 2>/dev/null || true)" != "${inputs}" ] || return 0
    rm -rf "${place}"
    mkdir -p "${place}"
    mapfile -t platforms < <(seq -f '--platform=manylinux_2_%.0f_aarch64' 17 39)
    "${bin}/pip" download --quiet --only-binary=:all: --implementation=cp --python-version="${python_of_suite[${suite}]#python}" \
        "${platforms[@]}" --platform=manylinux2014_aarch64 --dest "${place}" "$@" ||
        fail "pip could not download aarch64 wheels of $*" "check the package index that pip is configured with"
    echo "${inputs}" >"${place}/.inputs"
}

# environment NAME FROM PATH REQUIREMENT...    python_environment makes it in FROM, of the wheels NAME; the result is the image NAME
environment() {
    local name=$1 from=$2 path=$3 inputs
    shift 3
    inputs=$({
        docker image inspect --format '{{ .Id }}' "${from}"
        cat "${work}/wheels/${name}/.inputs"
        inputs_of environment
    } | sha256sum | cut -d' ' -f1)
    seen="$(find "${work}/wheels/${name}" -name '*.whl' | wc -l) wheels"
    if fresh "${image}:${name}" "${inputs}"; then
        seen+=", unchanged"
        say "${image}:${name}: ${seen}"
        return
    fi
    guest_up 1 --network none --volume "${work}/wheels/${name}:/lab/wheels:ro" "${from}"
    play environment --extra-vars "{\"path\": \"${path}\", \"requirements\": $(printf '%s\n' "$@" | "${bin}/python" -c 'import json, sys; print(json.dumps(sys.stdin.read().split()))')}"
    rm -rf "${work}/compiled"
    docker cp --quiet "sparkfleet-lab-arm64-1:${path}/lib" "${work}/compiled" >>"${log}" 2>&1
    compile "${work}/compiled" "${work}/compiled"
    docker cp --quiet "${work}/compiled/." "sparkfleet-lab-arm64-1:${path}/lib" >>"${log}" 2>&1
    keep 1 "${image}:${name}" "${inputs}"
}

modules() {
    local requirements
    mapfile -t requirements < <("${bin}/python" -c 'import sys, yaml
print("\n".join(yaml.safe_load(open(sys.argv[1]))["prerequisites_python_requirements"]))' "${lab_root}/roles/prerequisites/defaults/main.yml")
    # A Spark installs just these files, by their hashes: what the index has besides, and has newer, is of no use to it.
    "${bin}/python" -c 'import runpy, sys
print("\n".join(runpy.run_path(sys.argv[1])["HASHES"]))' "${lab_root}/plugins/module_utils/_common/packages.py" >"${work}/hashes.txt"
    wheels modules --requirement="${work}/hashes.txt"
    environment modules "${base}" /opt/sparkfleet/venv "${requirements[@]}"
}

# Starts two hosts, and of the depot only the Hub, on this machine, where the hosts reach it.
fleet() {
    local gateway root="${work}/hub"
    docker network rm "${network}" >/dev/null 2>&1 || true
    undo+=("docker network rm '${network}' >/dev/null")
    docker network create --label "${lab_label}=arm64" "${network}" >/dev/null
    gateway=$(docker network inspect --format '{{ (index .IPAM.Config 0).Gateway }}' "${network}")
    rm -rf "${root}"
    mkdir -p "${root}"
    "${bin}/python" "${here}/publish.py" "${root}" >"${work}/locked.json"
    "${bin}/python" -u "${lab_dir}/depot/hub.py" --root "${root}" --host "${gateway}" --port 8081 >>"${log}" 2>&1 &
    undo+=("kill $!")
    guest_up 1 --network "${network}" "${image}:modules"
    guest_up 2 --network "${network}" "${image}:modules"
    play fleet --extra-vars "@${work}/locked.json" --extra-vars "endpoint=http://${gateway}:8081 requests=${root}/.hub-requests.jsonl"
}

# The stub that stands for vLLM.
stub() {
    local inputs
    inputs=$({
        docker image inspect --format '{{ .Id }}' "${base}"
        fingerprint "${lab_dir}"/stub/{Dockerfile,gemma4_mtp.py,server.py,vllm}
    } | sha256sum | cut -d' ' -f1)
    if fresh "${image}:stub" "${inputs}"; then
        say "${image}:stub: unchanged"
        return
    fi
    sed "s|^ARG BASE=.*|ARG BASE=${base}|" "${lab_dir}/stub/Dockerfile" |
        docker build --platform linux/arm64 --network none --label "${lab_label}.inputs=${inputs}" --tag "${image}:stub" \
            --file - "${lab_dir}/stub" >>"${log}" 2>&1 || fail "${image}:stub could not be built" "read ${log}"
    say "${image}:stub: made"
}

# A host that has this machine's engine, network and processes for its own: a Spark's modules see into the server's process.
server() {
    local store="${work}/store" container=sparkfleet-lab-arm64-stub port
    stub
    docker rm --force "${container}" >/dev/null 2>&1 || true
    undo+=("docker rm --force '${container}' >/dev/null 2>&1")
    as_root rm -rf "${store}"
    mkdir -p "${store}"
    port=$("${bin}/python" -c 'import socket; one = socket.create_server(("127.0.0.1", 0)); print(one.getsockname()[1])')
    guest_up server --network host --pid host --cap-add SYS_PTRACE --security-opt apparmor=unconfined \
        --volume /var/run/docker.sock:/var/run/docker.sock --volume "${store}:${store}" "${image}:modules"
    play server --extra-vars "store=${store} container=${container} label=${lab_label} base_url=http://127.0.0.1:${port}" \
        --extra-vars "image=$(docker image inspect --format '{{ .Id }}' "${image}:stub")"
}

# The tests of all that travels to a host, except for those that left_out.txt names.
unit() {
    local names requirements left_out
    names=$(sed 's/[#=<>].*//; s/ *$//; /^$/d; y/_/-/' "${lab_root}/requirements/tests.in" | paste -sd '|')
    mapfile -t requirements < <(grep -E "^(ansible-core|huggingface-hub|requests|${names})==" "${lab_root}/requirements/dev.txt")
    wheels unit --constraint="${lab_root}/requirements/dev.txt" "${requirements[@]}"
    environment unit "${image}:modules" /opt/sparkfleet/unit "${requirements[@]}"
    mapfile -t left_out < <(sed -n 's/^\(tests[^ ]*\) .*/--deselect=\1/p' "${here}/left_out.txt")
    guest_up 1 --network none --volume "${lab_root}:/collection:ro" --workdir /collection "${image}:unit"
    # A test that hangs shows where, every ten minutes.
    docker exec --env LC_ALL=C.UTF-8 sparkfleet-lab-arm64-1 /opt/sparkfleet/unit/bin/python -m pytest -n auto -p no:cacheprovider \
        -o faulthandler_timeout=600 --durations=10 -r sfE "${left_out[@]}" tests/unit/plugins/module_utils tests/unit/plugins/modules \
        >"${work}/unit.log" 2>&1 || {
        tail -n 40 "${work}/unit.log" >&2
        fail "unit tests failed on aarch64" "read ${work}/unit.log"
    }
    seen+="; $(tail -n 1 "${work}/unit.log"); ${#left_out[@]} lines of left_out.txt"
}

main() {
    local part began figures=() seen
    [ $# -gt 0 ] || set -- fleet server unit
    for part in "$@"; do
        case "${part}" in
            fleet | server | unit) ;;
            *) fail "expected fleet, server or unit, seen ${part}" "name one of them, or none for all" ;;
        esac
    done
    emulate
    choose_suite
    for part in base modules "$@"; do
        began=${SECONDS}
        # What a part has seen, for the last line.
        seen=
        "${part}"
        figures+=("${part} $((SECONDS - began)) s${seen:+ (${seen})}")
    done
    say "on $(uname -m), as $(docker image inspect --format '{{ .Architecture }}' "${base}"), ${suite}: $(printf '%s; ' "${figures[@]}")${SECONDS} s in all"
}

main "$@"
exit
