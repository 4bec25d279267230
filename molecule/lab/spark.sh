#!/usr/bin/env bash
# One lab Spark: a container that boots and is reached like a host. README.md explains each flag.
#   spark.sh create NAME ADDRESS IMAGE SHM_SIZE     leaves a matching one alone; prints what was done, if anything
#   spark.sh destroy NAME ADDRESS                   removes it with all data of its engine
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

action=$1 host=$2 address=$3
name="sparkfleet-lab-${host}"
# For its engine and for containerd: overlay2 and overlayfs do not stack on overlay2.
volumes=("${name}-docker:/var/lib/docker" "${name}-containerd:/var/lib/containerd")
keys="${lab_cache}/ssh"
known="${keys}/known_hosts.d/${address}"

there() { docker container inspect "${name}" >/dev/null 2>&1; }

create() {
    local image=$1 shm_size=$2 id flags inputs seen
    case "${image}" in
        "${lab_spark_image}:latest" | "${lab_spark_image}:former" | "${lab_spark_image}:bare") ;;
        *) image=$("${lab_dir}/snapshot.sh" "${image}") ;;
    esac
    id=$(docker image inspect --format '{{ .Id }}' "${image}") || fail "expected the image ${image}, seen none" "make lab-depot"
    (umask 077 && mkdir -p "${known%/*}")
    (
        flock 9
        [ -e "${keys}/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C sparkfleet-lab -f "${keys}/id_ed25519"
    ) 9>"${keys}/lock"

    flags=(
        --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add IPC_LOCK
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined
        --device-cgroup-rule 'c *:* rwm' --device-cgroup-rule 'b *:* m'
        --volume /sys/fs/cgroup:/sys/fs/cgroup:rw "${volumes[@]/#/--volume=}"
        --tmpfs /run:exec --tmpfs /tmp:exec --shm-size "${shm_size}" --stop-signal SIGRTMIN+3
        --network "${lab_network}" --ip "${address}"
    )
    [ "$(docker info --format '{{ .CgroupVersion }}')" != 2 ] || flags+=(--cgroupns host)
    inputs=$(printf '%s\n' "${id}" "${flags[@]}" | sha256sum | cut -d' ' -f1)
    seen=$(docker container inspect --format "{{ .State.Running }} {{ index .Config.Labels \"${lab_label}.inputs\" }}" "${name}" 2>/dev/null || true)
    case "${seen}" in
        "true ${inputs}") ;;
        "false ${inputs}")
            docker start "${name}" >/dev/null
            echo started
            ;;
        *)
            ! there || docker rm --force "${name}" >/dev/null
            for volume in "${volumes[@]%%:*}"; do docker volume create --label "${lab_label}=host" "${volume}" >/dev/null; done
            docker run --detach --name "${name}" --hostname "${host}" --label "${lab_label}=host" --label "${lab_label}.inputs=${inputs}" \
                "${flags[@]}" "${image}" >/dev/null
            echo created
            ;;
    esac
    # Waits until it has booted.
    seen=$(docker exec "${name}" /usr/local/sbin/lab-ready "$(cat "${keys}/id_ed25519.pub")")
    seen="${address} ${seen}"
    [ "$(cat "${known}" 2>/dev/null || true)" = "${seen}" ] || echo "${seen}" >"${known}"
}

destroy() {
    if there; then
        docker rm --force "${name}" >/dev/null
        echo removed
    fi
    docker volume rm --force "${volumes[@]%%:*}" >/dev/null
    rm -f "${known}"
}

shift 3
case "${action}" in
    create | destroy) "${action}" "$@" ;;
    *) fail "spark.sh create|destroy, not ${action}" ;;
esac
