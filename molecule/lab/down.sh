#!/usr/bin/env bash
# Removes everything with the lab's label, the engine if the lab started it, and .cache/lab.
# Installed distribution packages stay, because something else may use them.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

each() { # each THING: ids on stdin, removed together if there are any
    xargs --no-run-if-empty "$@" >/dev/null
}
if docker info >/dev/null 2>&1; then
    docker ps -aq --filter "label=${lab_label}" | each docker rm -f
    docker volume ls -q --filter "label=${lab_label}" | each docker volume rm -f
    docker network ls -q --filter "label=${lab_label}" | each docker network rm
    # By name: an image with several names cannot be removed by id, and force could also remove a name of someone else. Images
    # that a build left between two steps have no name. An image can go only after those made from it, so repeat until none is left.
    images() { docker images --all --no-trunc --filter "label=${lab_label}" --format '{{ .Repository }}:{{ .Tag }} {{ .ID }}' | sed -E 's/^.*<none>\S* //; s/ .*//'; }
    while left=$(images) && [ -n "${left}" ]; do
        xargs --no-run-if-empty -n 1 docker rmi <<<"${left}" >/dev/null 2>&1 || true
        [ "$(images)" != "${left}" ] || break
    done
    docker builder prune --force --filter "label=${lab_label}" >/dev/null 2>&1 || true
fi
"${lab_dir}/engine.sh" stop
as_root rm -rf --one-file-system "${lab_cache}" "${lab_locks[@]}"
say "the lab is gone; packages that it installed (docker.io, mmdebstrap, ...) are still there"
