#!/usr/bin/env bash
# Installs the distribution packages that the controller needs.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
apt_install openssh-client curl
say "tools: there"
