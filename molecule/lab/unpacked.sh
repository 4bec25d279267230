#!/usr/bin/env bash
# What the unit tests need: programs of the distribution, unpacked, so that no service starts; and what makes network namespaces.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

apt_install iproute2 iptables

pool="${lab_cache}/depot/www/apt/distribution"
deb() { find "${pool}" -name "$1_*.deb" -print -quit; }

# unpack FOLDER PACKAGE PROGRAM...: the package with its libraries, and a script for each program, which is a path in the package.
unpack() {
    local target="${lab_cache}/$1" package waiting name libraries program version
    package=$(deb "$2")
    [ -n "${package}" ] || fail "expected the package $2 in ${pool}, seen none" "make lab-depot"
    if [ "$(cat "${target}/.inputs" 2>/dev/null || true)" = "${package##*/}" ]; then
        say "$2: unchanged"
        return
    fi
    rm -rf "${target}"
    mkdir -p "${target}"
    # Its libraries come along, but for those of a browser and of the C compiler: this machine has the latter, and only one libc fits a
    # program loader.
    waiting=("${package}")
    while [ ${#waiting[@]} -gt 0 ]; do
        package=${waiting[0]}
        waiting=("${waiting[@]:1}")
        [ ! -e "${target}/.${package##*/}" ] || continue
        touch "${target}/.${package##*/}"
        dpkg-deb --extract "${package}" "${target}"
        for name in $(dpkg-deb --field "${package}" Depends | tr ',' '\n' | sed 's/^ *//; s/[ :|(].*//'); do
            case "${name}" in
                libc6 | libgcc-s1 | libstdc++6 | libcrypt1 | libjs-*) ;;
                lib*) waiting+=("$(deb "${name}")") ;;
            esac
        done
    done
    libraries=$(find "${target}" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
    for program in "${@:3}"; do
        name="${target}/${program##*/}"
        cat >"${name}" <<SCRIPT
#!/bin/sh
LD_LIBRARY_PATH=${libraries} exec ${target}/${program} "\$@"
SCRIPT
        chmod +x "${name}"
        version=$("${name}" --version 2>/dev/null) || version=$("${name}" -v) ||
            fail "expected ${name} to run, seen: ${version}" "see which of its libraries is missing: ldd ${target}/${program}"
        say "${program##*/}: ${version%%$'\n'*}"
    done
    basename "$(deb "$2")" >"${target}/.inputs"
}

unpack haproxy haproxy usr/sbin/haproxy
unpack prometheus prometheus usr/bin/promtool
unpack alertmanager prometheus-alertmanager usr/bin/amtool
unpack nftables nftables usr/sbin/nft
