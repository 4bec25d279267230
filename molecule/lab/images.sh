#!/usr/bin/env bash
# Builds the lab's images from the packages that packages.sh fetched:
#   sparkfleet-lab/base:<codename>   the distribution of this machine, python3 with venv, CA certificates
#   sparkfleet-lab/spark:bare        systemd, sshd, an nvidia-smi that reports a GB10; no Docker engine
#   sparkfleet-lab/spark:latest      the same with a Docker engine as DGX OS comes: the newest there is, images in containerd
#   sparkfleet-lab/spark:former      the same with the distribution's engine, images in overlay2
#   sparkfleet-lab/depot:latest      registry and web server
# Nothing is pulled and no image build has a network. "docker run" and "docker commit" replace a Dockerfile:
# the packages are mounted, not copied into a layer, on any engine and without BuildKit.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

codename=$(. /etc/os-release && echo "${VERSION_CODENAME}")
apt="${lab_cache}/depot/www/apt"
base="${lab_base}:${codename}"
apt_install mmdebstrap

# One image from another: layer IMAGE FROM DIRECTORY CHANGE...   runs DIRECTORY/setup.sh in FROM, with its packages
layer() {
    local image=$1 from=$2 directory=$3 name
    shift 3
    local inputs
    inputs=$({
        docker image inspect --format '{{ .Id }}' "${from}"
        fingerprint "${directory}" "${lab_dir}/packages.txt" "${lab_dir}/images.sh"
        printf '%s\n' "$@"
    } | sha256sum | cut -d' ' -f1)
    if fresh "${image}" "${inputs}"; then
        say "${image}: unchanged"
        return
    fi
    name="sparkfleet-lab-build-$(basename "${directory}")"
    docker rm -f "${name}" >/dev/null 2>&1 || true
    # shellcheck disable=SC2064 # the name of now
    trap "docker rm -f '${name}' >/dev/null 2>&1 || true" EXIT
    docker run --name "${name}" --label "${lab_label}=build" --network none \
        -v "${apt}:/lab/apt:ro" -v "${lab_dir}:/lab/molecule:ro" -e DEBIAN_FRONTEND=noninteractive \
        "${from}" sh -eu -c '
            echo "deb [signed-by=/lab/apt/depot.asc] copy:/lab/apt/distribution ./" > /etc/apt/sources.list
            printf "#!/bin/sh\nexit 101\n" > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
            apt-get -qq update -o Acquire::Languages=none
            packages() { sed -n "s/^$1: *//p" /lab/molecule/packages.txt; }
            install() { apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Use-Pty=0 install "$@"; }
            . "/lab/molecule/$0/setup.sh"
            rm -rf /usr/sbin/policy-rc.d /etc/apt/sources.list /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt' \
        "${directory#"${lab_dir}"/}" >"${lab_cache}/image-${name}.log" 2>&1 || {
        tail -n 20 "${lab_cache}/image-${name}.log" >&2
        fail "${image} could not be built" "read ${lab_cache}/image-${name}.log"
    }
    docker commit --pause=false --change "LABEL ${lab_label}=image ${lab_label}.inputs=${inputs}" "$@" "${name}" "${image}" >/dev/null
    docker rm -f "${name}" >/dev/null
    say "${image}: built, $(size "${image}")"
}

size() { docker image inspect --format '{{ .Size }}' "$1" | awk '{ printf "%d MB", $1 / 1e6 }'; }

base() {
    local inputs
    inputs=$({
        cat "${apt}/.inputs" "${apt}/depot.asc"
        sed -n '/^base()/,/^}/p' "${lab_dir}/images.sh"
    } | sha256sum | cut -d' ' -f1)
    if fresh "${base}" "${inputs}"; then
        say "${base}: unchanged"
        return
    fi
    # No image names the mirror: a file of the depot takes its place for the build only.
    as_root mmdebstrap --quiet --mode=root --variant=apt --include="$(sed -n 's/^base: *//p' "${lab_dir}/packages.txt")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/hostname "$1"/etc/resolv.conf' \
        "${codename}" - "deb [signed-by=${apt}/depot.asc] copy://${apt}/distribution ./" 2>"${lab_cache}/image-base.log" |
        docker import --change "LABEL ${lab_label}=image ${lab_label}.inputs=${inputs}" --change 'CMD ["/bin/bash"]' \
            - "${base}" >/dev/null || {
        tail -n 20 "${lab_cache}/image-base.log" >&2
        fail "${base} could not be built" "read ${lab_cache}/image-base.log"
    }
    say "${base}: built, $(size "${base}")"
}

# Builds all images, or the named ones (base, spark, depot). The base always comes first.
base
for image in "${@:-spark depot}"; do
    for one in ${image}; do
        case "${one}" in
            base) ;;
            depot) layer "${lab_depot_image}" "${base}" "${lab_dir}/depot" --change 'ENTRYPOINT ["/usr/local/bin/depot"]' ;;
            spark)
                # "container" tells systemd where it is.
                boot=(--change 'CMD ["/usr/local/sbin/lab-init"]' --change 'ENV container=docker')
                layer "${lab_spark_image}:bare" "${base}" "${lab_dir}/spark" "${boot[@]}"
                layer "${lab_spark_image}:former" "${lab_spark_image}:bare" "${lab_dir}/engine" "${boot[@]}"
                newest=engine
                [ ! -d "${apt}/newest-engine" ] || newest=newest-engine
                layer "${lab_spark_image}:latest" "${lab_spark_image}:bare" "${lab_dir}/${newest}" "${boot[@]}"
                ;;
            *) fail "no image ${one}" "base, spark or depot" ;;
        esac
    done
done
