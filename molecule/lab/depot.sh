#!/usr/bin/env bash
# Starts the depot: registry, minimal Hub, raw files, apt repositories and Python packages, on the lab's network.
# Its data lies under .cache/lab/depot and may be written while it runs.
#   depot.sh          starts it, or leaves it alone if it already runs with these settings
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

data="${lab_cache}/depot"
name=sparkfleet-lab-depot
mkdir -p "${data}"/{registry,hub,www/raw,www/apt,www/pypi/simple,log}

if ! docker network inspect "${lab_network}" >/dev/null 2>&1; then
    docker network create --subnet "${lab_subnet}" --label "${lab_label}=network" "${lab_network}" >/dev/null || fail \
        "the network ${lab_network} could not be made with ${lab_subnet}" \
        "is the subnet taken? set LAB_SUBNET to a free one; inventory/lab names the addresses"
fi

"${lab_dir}/images.sh" depot
image=$(docker image inspect --format '{{ .Id }}' "${lab_depot_image}")
inputs=$({
    echo "${image} ${lab_depot_address} ${lab_registry} ${data} $(id -u):$(id -g)"
    fingerprint "${lab_dir}/depot" "${lab_dir}/depot.sh"
} | sha256sum | cut -d' ' -f1)
if [ "$(docker inspect --format "{{ .State.Running }} {{ index .Config.Labels \"${lab_label}.inputs\" }}" "${name}" 2>/dev/null)" = "true ${inputs}" ]; then
    say "depot: runs at ${lab_depot_address}"
    exit 0
fi

docker rm -f "${name}" >/dev/null 2>&1 || true
# Runs as the user of the lab, who can then remove its files without being root.
docker run -d --init --name "${name}" --hostname "${name}" --restart unless-stopped \
    --label "${lab_label}=depot" --label "${lab_label}.inputs=${inputs}" \
    --network "${lab_network}" --ip "${lab_depot_address}" -p "127.0.0.1:${lab_registry##*:}:5000" \
    --user "$(id -u):$(id -g)" -v "${data}:/srv" -v "${lab_dir}/depot:/depot:ro" "${lab_depot_image}" >/dev/null || fail \
    "the depot did not start" "is port ${lab_registry##*:} taken on 127.0.0.1? set LAB_REGISTRY=localhost:<free port>"

up() {
    local url
    for url in "${lab_depot_address}:5000/v2/" "${lab_depot_address}:8080/apt/" "${lab_depot_address}:8081/"; do
        # Any answer counts; a refused connection does not.
        curl --noproxy '*' -s -o /dev/null --max-time 5 "http://${url}" || return 1
    done
}
for _ in $(seq 50); do
    if up; then
        say "depot: started at ${lab_depot_address}"
        exit 0
    fi
    sleep 0.2
done
docker logs --tail 20 "${name}" >&2
fail "the depot does not answer at ${lab_depot_address}" "read ${data}/log"
