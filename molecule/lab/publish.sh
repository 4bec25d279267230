#!/usr/bin/env bash
# Publishes vLLM image, models and patch. If they are rebuilt, locks of the lab's inventories that pin the former ones are
# dropped: the lab itself changed its upstream, and the lock would rightly refuse that.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

made() { cat "${lab_cache}"/vllm/{image,models}.inputs 2>/dev/null || true; }

before=$(made)
"${lab_dir}/vllm/build.sh"
if [ "$(made)" != "${before}" ]; then
    rm -rf "${lab_locks[@]}"
    say "published anew; locks of the lab start over"
fi
