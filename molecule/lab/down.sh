#!/usr/bin/env bash
# Removes everything that carries the lab's label, the engine if the lab started it, and .cache/lab.
# Distribution packages that were installed stay, since something else may use them by now.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

each() { # each THING: ids on stdin, removed together if there are any
    xargs --no-run-if-empty "$@" >/dev/null
}
if docker info >/dev/null 2>&1; then
    docker ps -aq --filter "label=${lab_label}" | each docker rm -f
    docker volume ls -q --filter "label=${lab_label}" | each docker volume rm -f
    docker network ls -q --filter "label=${lab_label}" | each docker network rm
    # By name: an image with several names is not removable by id, and forcing it could take somebody else's name along.
    docker images --filter "label=${lab_label}" --format '{{ .Repository }}:{{ .Tag }} {{ .ID }}' |
        sed -E 's/^.*<none>\S* //; s/ .*//' | tac | while read -r image; do docker rmi "${image}" >/dev/null || true; done
    docker builder prune --force --filter "label=${lab_label}" >/dev/null 2>&1 || true
fi
"${lab_dir}/engine.sh" stop
as_root rm -rf --one-file-system "${lab_cache}" "${lab_root}/inventory/lab-locks" "${lab_root}"/molecule/*/lab-locks
say "the lab is gone; packages that it installed (docker.io, mmdebstrap, ...) are still there"
