#!/usr/bin/env bash
# Makes an image of a prepared lab Spark, from which others start:
#   sparkfleet-lab/spark:set-up      role prerequisites has run (snapshot/set-up.yml)
#   snapshot.sh IMAGE     makes it, unless it exists with the same inputs; prints its id, which is what to start
# A snapshot belongs to one checkout. Use its id: another checkout may take the name.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=$1
kind=${image#"${lab_spark_image}:"}
here="${lab_dir}/snapshot"
bin="${lab_root}/.venv/bin"
log="${lab_cache}/image-${kind}.log"
[ -e "${here}/${kind}.yml" ] || fail "expected the name of a snapshot, seen ${image}" \
    "name one that ${here#"${lab_root}/"} has a playbook for, as ${lab_spark_image}:set-up"
cd "${lab_root}"

inputs=$({
    docker image inspect --format '{{ .Id }}' "${lab_spark_image}:latest"
    cat "${lab_cache}/depot/www/pypi/simple/.inputs"
    "${bin}/python" "${here}/inputs.py" "${here}/${kind}.yml" | xargs sha256sum
    fingerprint "${lab_dir}/snapshot.sh" "${lab_dir}/"{spark.sh,create.yml} "${here}/inventory" inventory/lab/group_vars requirements/dev.txt
} | sha256sum | cut -d' ' -f1) || fail "expected the image, the wheels and the environment of the lab, seen not all of them" "make lab-depot"

there() { docker images --quiet --no-trunc --filter "label=${lab_label}.snapshot=${kind}" --filter "label=${lab_label}.inputs=${inputs}" | head -n 1; }

# Removes the identity of the host, and its journal. Each copy gets its own at its first boot.
forget='
    systemctl stop docker.socket docker.service containerd.service
    rm -rf /etc/ssh/ssh_host_* /etc/docker/key.json /home/spark/.ssh /var/log/journal/*
    : >/etc/machine-id'

play() { "${bin}/ansible-playbook" -i "${here}/inventory" "$1" >>"${log}" 2>&1; }

make() {
    export ANSIBLE_CONFIG="${lab_root}/ansible.cfg" ANSIBLE_COLLECTIONS_PATH="${lab_root}/.cache/collections"
    : >"${log}"
    trap 'play "${lab_dir}/destroy.yml"' EXIT
    play "${lab_dir}/destroy.yml" && play "${lab_dir}/create.yml" && play "${here}/${kind}.yml" &&
        docker exec sparkfleet-lab-snapshot sh -eu -c "${forget}" >>"${log}" 2>&1 || {
        tail -n 20 "${log}" >&2
        fail "${image} could not be made" "read ${log}"
    }
    docker commit --change "LABEL ${lab_label}=image ${lab_label}.snapshot=${kind} ${lab_label}.inputs=${inputs}" \
        sparkfleet-lab-snapshot "${image}" >/dev/null
    # Snapshots of other checkouts may be in use, unless they are more than a day old.
    docker image prune --force --filter "label=${lab_label}.snapshot=${kind}" --filter until=24h >/dev/null
}

# One at a time: scenarios start together, and the host has only one name.
exec 9>"${lab_cache}/snapshot.lock"
flock 9
if [ -n "$(there)" ]; then
    say "${image}: unchanged"
else
    make 9>&- # a connection that ssh keeps would keep the lock, too
    say "${image}: made, $(docker image inspect --format '{{ .Size }}' "${image}" | awk '{ printf "%d MB", $1 / 1e6 }')"
fi
there
