#!/usr/bin/env bash
# Creates the lab Sparks of an inventory.   hosts.sh INVENTORY
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "${lab_root}"
.venv/bin/ansible-playbook -i "${1:-inventory/lab}" "${lab_dir}/create.yml" || fail "a lab Spark was not created" \
    "see what the play above says; docker ps -a and docker logs sparkfleet-lab-<host> show the containers"
say "hosts: $(.venv/bin/ansible -i "${1:-inventory/lab}" sparks --list-hosts | tail -n +2 | xargs)"
