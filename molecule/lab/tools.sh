#!/usr/bin/env bash
# What the controller itself needs of the distribution.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
apt_install openssh-client curl
say "tools: there"
