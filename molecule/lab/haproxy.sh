#!/usr/bin/env bash
# What the unit tests of gateways need: the distribution's HAProxy, unpacked, so that no service starts; and programs for network namespaces.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

apt_install iproute2 iptables

pool="${lab_cache}/depot/www/apt/distribution"
target="${lab_cache}/haproxy"
deb() { find "${pool}" -name "$1_*.deb" -print -quit; }

package=$(deb haproxy)
[ -n "${package}" ] || fail "expected the package haproxy in ${pool}, seen none" "make lab-depot"
if [ "$(cat "${target}/.inputs" 2>/dev/null || true)" = "${package##*/}" ]; then
    say "haproxy: unchanged"
    exit 0
fi
rm -rf "${target}"
mkdir -p "${target}"
# Its libraries come along, but for those of the C compiler: this machine has them, and only one libc fits a program loader.
waiting=("${package}")
while [ ${#waiting[@]} -gt 0 ]; do
    package=${waiting[0]}
    waiting=("${waiting[@]:1}")
    [ ! -e "${target}/.${package##*/}" ] || continue
    touch "${target}/.${package##*/}"
    dpkg-deb --extract "${package}" "${target}"
    for name in $(dpkg-deb --field "${package}" Depends | tr ',' '\n' | sed 's/^ *//; s/[ :|(].*//'); do
        case "${name}" in
            libc6 | libgcc-s1 | libstdc++6 | libcrypt1) ;;
            lib*) waiting+=("$(deb "${name}")") ;;
        esac
    done
done
libraries=$(find "${target}" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
cat >"${target}/haproxy" <<SCRIPT
#!/bin/sh
LD_LIBRARY_PATH=${libraries} exec ${target}/usr/sbin/haproxy "\$@"
SCRIPT
chmod +x "${target}/haproxy"
version=$("${target}/haproxy" -v) || fail "expected ${target}/haproxy to run, seen: ${version}" "see which of its libraries is missing: ldd ${target}/usr/sbin/haproxy"
basename "$(deb haproxy)" >"${target}/.inputs"
say "haproxy: ${version%%$'\n'*}"
