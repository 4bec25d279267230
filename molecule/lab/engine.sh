#!/usr/bin/env bash
# Makes sure that a Docker engine answers.
#   engine.sh          uses a running engine; else installs the distribution's docker.io and starts it
#   engine.sh stop     stops the engine, if and only if "engine.sh" started it
#
# An engine that the lab starts directly has a separate data root, so that its data can be removed without touching
# /var/lib/docker.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

started="${lab_cache}/engine-started"
engine_root="${LAB_ENGINE_ROOT:-/var/lib/sparkfleet-lab}"
log="${lab_cache}/dockerd.log"

answers() { docker info >/dev/null 2>&1; }

await() {
    local second
    for second in $(seq 1 60); do
        answers && return 0
        # Do not wait for an engine that died at once.
        if [ -n "${1:-}" ] && [ "${second}" -gt 3 ] && ! as_root kill -0 "$1" 2>/dev/null; then return 1; fi
        sleep 1
    done
    return 1
}

start() {
    if command -v docker >/dev/null && answers; then
        say "engine: $(docker version --format '{{ .Server.Version }}'), $([ -e "${started}" ] && echo "started by the lab" || echo "yours")"
        return
    fi
    if command -v docker >/dev/null && [ -S /var/run/docker.sock ] && as_root docker info >/dev/null 2>&1; then
        fail "an engine runs, and $(id -un) may not use it" \
            "sudo usermod -aG docker $(id -un), log in again, and run the same command"
    fi
    local new=no
    command -v dockerd >/dev/null || new=yes
    apt_install docker.io iptables iproute2 pigz ca-certificates
    if has_systemd; then
        as_root systemctl start docker.service
        printf 'systemd\n' >"${started}"
        # A newly installed engine has no users yet; its group becomes that of the caller.
        [ "${new}" = no ] || [ "$(id -u)" = 0 ] || as_root chgrp "$(id -g)" /var/run/docker.sock
        await || fail "docker.service did not start" "systemctl status docker.service; journalctl -u docker.service"
    else
        as_root mkdir -p "${engine_root}"
        as_root iptables -S FORWARD | sed -n 's/^-P FORWARD //p' >"${lab_cache}/engine-forward"
        cat /proc/sys/net/ipv4/ip_forward >>"${lab_cache}/engine-forward"
        # setsid: the engine outlives the terminal that started it.
        as_root setsid dockerd --data-root "${engine_root}/docker" --group "$(id -g)" --pidfile "${engine_root}/dockerd.pid" \
            >"${log}" 2>&1 </dev/null &
        printf 'by hand\n' >"${started}"
        await $! || {
            tail -n 20 "${log}" >&2
            fail "dockerd did not answer within 60 s" "read ${log}; the machine must allow containers (cgroups, iptables, overlayfs)"
        }
    fi
    say "engine: $(docker version --format '{{ .Server.Version }}'), installed and started by the lab"
}

# Remove what dockerd leaves in the kernel: its bridges, its rules, and the forwarding that it turned on. A killed dockerd also
# leaves the lab's bridge, which would take the packets of the next lab, and the network namespaces of its containers.
forget() {
    local policy forward
    {
        echo docker0
        ip -o -4 address show to "${lab_subnet}" | awk '$2 ~ /^br-[0-9a-f]+$/ { print $2 }'
    } | while read -r bridge; do as_root ip link delete "${bridge}" 2>/dev/null || true; done
    awk 'index($2, "/run/docker/netns/") == 1 { print $2 }' /proc/mounts |
        while read -r path; do as_root umount --lazy "${path}" && as_root rm -f "${path}"; done
    as_root iptables-save | grep -vE 'DOCKER|docker0|br-[0-9a-f]{12}' | as_root iptables-restore
    {
        read -r policy
        read -r forward
    } <"${lab_cache}/engine-forward" || return 0
    as_root iptables -P FORWARD "${policy}"
    as_root sh -c "echo ${forward} >/proc/sys/net/ipv4/ip_forward"
}

stop() {
    [ -e "${started}" ] || { say "engine: not started by the lab, left as it is"; return; }
    local others
    others=$({ docker ps -aq && docker images -q && docker volume ls -q; } 2>/dev/null | wc -l) || others=0
    if [ "${others}" -gt 0 ]; then
        say "engine: left running, it holds ${others} containers, images or volumes that are not the lab's"
        return
    fi
    if [ "$(cat "${started}")" = systemd ]; then
        as_root systemctl stop docker.service docker.socket
    else
        local pid
        pid=$(as_root cat "${engine_root}/dockerd.pid" 2>/dev/null || true)
        if [ -n "${pid}" ] && [ "$(as_root cat "/proc/${pid}/comm" 2>/dev/null)" = dockerd ]; then
            as_root kill "${pid}"
            while as_root kill -0 "${pid}" 2>/dev/null; do sleep 0.2; done
        fi
        forget
        # A data root may still be mounted on itself, and a mounted directory cannot be removed.
        awk -v root="${engine_root}/" 'index($2, root) == 1 { print $2 }' /proc/mounts | sort -r |
            while read -r path; do as_root umount --lazy "${path}"; done
        as_root rm -rf --one-file-system "${engine_root}"
    fi
    rm -f "${started}" "${log}" "${lab_cache}/engine-forward"
    say "engine: stopped"
}

case "${1:-start}" in
    start | stop) "${1:-start}" ;;
    *) fail "engine.sh start|stop, not $1" ;;
esac
