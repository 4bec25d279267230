#!/usr/bin/env bash
# A bare git repository sparkfleet-lab/source, packed: a release, one commit after it, and one that cannot be built.
# Prints the last two.   source.sh FILE.tar
set -euo pipefail
export GIT_AUTHOR_NAME=lab GIT_AUTHOR_EMAIL=lab@example.com GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@example.com
export GIT_CONFIG_GLOBAL=/dev/null
mkdir -p "$(dirname "$1")"
here=$(mktemp -d)
trap 'rm -rf "${here}"' EXIT
mkdir -p "${here}/work/docker" "${here}/sparkfleet-lab"
cd "${here}/work"
git init --quiet
# .git is in the context, as vLLM's Dockerfile wants it.
cat >docker/Dockerfile <<'END'
FROM sparkfleet-lab/stub:1 AS built
ARG EDITION=none
COPY .git/HEAD /opt/built/commit
LABEL sparkfleet.lab.edition=${EDITION}
FROM built AS not-this-one
LABEL sparkfleet.lab.edition=of-another-stage
END
git add .
git commit --quiet --message "A release"
git tag v1.0.0
git commit --quiet --allow-empty --message "What is built"
git rev-parse HEAD
echo 'COPY nowhere /' >>docker/Dockerfile
git commit --quiet --all --message "What cannot be built"
git rev-parse HEAD
git clone --quiet --bare . "${here}/sparkfleet-lab/source"
tar -C "${here}" -cf "$1" sparkfleet-lab
