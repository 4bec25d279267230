# Shared by the lab's scripts: paths, root rights, messages.
# shellcheck shell=bash
set -euo pipefail

lab_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lab_dir="${lab_root}/molecule/lab"
lab_cache="${LAB_CACHE:-${lab_root}/.cache/lab}"
lab_subnet="${LAB_SUBNET:-172.31.250.0/24}"
lab_depot_address="${LAB_DEPOT_ADDRESS:-${lab_subnet%.*}.10}"
# The controller reaches the depot's registry here: an engine needs no TLS for a loopback registry.
lab_registry="${LAB_REGISTRY:-localhost:5005}"
lab_network=sparkfleet-lab
lab_base=sparkfleet-lab/base
lab_spark_image=sparkfleet-lab/spark
lab_depot_image=sparkfleet-lab/depot
lab_label=sparkfleet.lab
# Beside each inventory of the lab lie its locks.
lab_locks=("${lab_root}"/{inventory,molecule/*,molecule/lab/bench}/lab-locks)
mkdir -p "${lab_cache}"

# As root: a machine may have no sudo (root only) or need it. The environment goes along (proxies, CA bundles).
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n -E env "PATH=${PATH}:/usr/local/sbin:/usr/sbin:/sbin" "$@"
    fi
}

say() { printf '%s\n' "$*" >&2; }

# fail "expected / seen" "what to do next"
fail() {
    say "FAILED: $1"
    shift
    local line
    for line in "$@"; do say "  do: ${line}"; done
    exit 1
}

has_systemd() { [ -d /run/systemd/system ]; }

# Installs missing distribution packages; silent if none is missing. Packages start no service if the machine forbids it,
# and installed packages are not upgraded.
apt_install() {
    local missing=() package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "${package}" 2>/dev/null || true)" = installed ] || missing+=("${package}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    # Two phases may need packages at the same time.
    (
        flock 9
        # shellcheck disable=SC2012 # only whether there is any list matters
        if ! ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; then as_root apt-get update -qq; fi
        apt_get() {
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq -y --no-install-recommends "${missing[@]}"
        }
        # The lists may be older than the mirror: refresh them once before giving up.
        apt_get || { as_root apt-get update -qq && apt_get; }
    ) 9>"${lab_cache}/apt.lock" || fail "apt-get could not install ${missing[*]}" \
        "see why with: apt-get install ${missing[*]}" "then run the same command again"
}

# A phase is skipped if its inputs have not changed.   fingerprint FILE... -> sha256
fingerprint() {
    local path
    for path in "$@"; do
        if [ -d "${path}" ]; then
            find "${path}" -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
        else
            sha256sum "${path}"
        fi
    done | sed "s#${lab_root}/##" | sha256sum | cut -d' ' -f1
}

# fresh IMAGE FINGERPRINT: is this image there, made from these inputs?
fresh() {
    [ "$(docker image inspect --format "{{ index .Config.Labels \"${lab_label}.inputs\" }}" "$1" 2>/dev/null || true)" = "$2" ]
}
