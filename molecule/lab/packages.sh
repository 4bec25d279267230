#!/usr/bin/env bash
# Fetches every distribution package that the lab needs once, from the mirror in this machine's apt configuration, and makes
# two signed apt repositories of them under the depot's www/apt:
#   distribution   the packages that a Spark would get from a mirror of the distribution
#   toolkit        nvidia-container-toolkit, a stand-in (see toolkit/control)
# The images are then built from the first one, without a network. Beside them, in no repository:
#   newest-engine  the Docker engine of Debian's sid, if it is one that a Spark could have: for the lab Spark alone
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

codename=$(. /etc/os-release && echo "${VERSION_CODENAME}")
apt="${lab_cache}/depot/www/apt"
stamp="${apt}/.inputs"
apt_install dpkg-dev gnupg

# Also changes when the mirror changes: a security update makes new images.
inputs=$({
    echo "${codename} $(dpkg --print-architecture)"
    fingerprint "${lab_dir}/packages.txt" "${lab_dir}/packages.sh" "${lab_dir}/toolkit"
} | sha256sum | cut -d' ' -f1)
if [ "$(cat "${stamp}" 2>/dev/null || true)" = "${inputs}" ]; then
    say "packages: unchanged"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT
rm -rf "${apt}"
mkdir -p "${apt}/distribution" "${apt}/toolkit" "${work}/cache/archives/partial" "${work}/gnupg"

# Only the distribution's own sources: the lab does not use other repositories of this machine. apt-get update has verified
# the lists; this only chooses among them.
sources() {
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
        awk -F'|' -v codename="${codename}" '
            ($1 == "Debian" || $1 == "Ubuntu") && $3 ~ "^" codename "(-updates|-security)?$" {
                print "deb " $2 " " $3 " " $4 }' | sort -u
}
[ -n "$(sources)" ] || as_root apt-get update -qq
sources >"${work}/sources.list"
[ -s "${work}/sources.list" ] || fail "apt knows no source of ${codename}" "configure apt, run apt-get update, and try again"

# An empty package database resolves everything, whatever this machine has installed.
: >"${work}/status"
fetch() {
    # shellcheck disable=SC2046 # package names are words
    apt-get -qq -y --download-only --no-install-recommends \
        -o Dir::Etc::SourceList="${work}/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::status="${work}/status" -o Dir::Cache="${work}/cache" -o Debug::NoLocking=true \
        -o APT::Architectures="$(dpkg --print-architecture)" -o APT::Sandbox::User= -o APT::Install-Suggests=false \
        install '?essential' apt $(sed -n 's/^[a-z]*: *//p' "${lab_dir}/packages.txt") >"${work}/log"
}
fetch || { as_root apt-get update -qq && fetch; } || {
    tail -n 5 "${work}/log" >&2
    fail "the distribution's packages could not be fetched" "check that apt-get update works on this machine"
}
mv "${work}"/cache/archives/*.deb "${apt}/distribution/"

# Of sid come these packages and no dependency: they need no newer libc than this machine's distribution has. An apt of its own
# fetches them, so nothing else here knows sid. Without an engine of 28 or later there, the lab has the distribution's alone.
newest_engine() {
    local mirror version sid="${work}/sid"
    mirror=$(awk -v codename="${codename}" '$3 == codename { print $2; exit }' "${work}/sources.list")
    mkdir -p "${sid}/lists/partial" "${sid}/cache/archives/partial" "${apt}/newest-engine"
    echo "deb ${mirror} sid main" >"${sid}/sources.list"
    : >"${sid}/status"
    options=(-qq -o Dir::State="${sid}" -o Dir::State::Lists="${sid}/lists" -o Dir::State::status="${sid}/status" -o Dir::Cache="${sid}/cache"
        -o Dir::Etc::SourceList="${sid}/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root -o Debug::NoLocking=true)
    apt-get "${options[@]}" update && version=$(apt-cache "${options[@]}" show --no-all-versions docker.io | sed -n 's/^Version: //p') &&
        dpkg --compare-versions "${version:-0}" ge 28 &&
        (cd "${apt}/newest-engine" && apt-get "${options[@]}" download docker.io containerd docker-cli docker-buildx tini-static)
}
if [ "$(. /etc/os-release && echo "${ID}")" != debian ] || ! newest_engine >"${work}/log" 2>&1; then
    rm -rf "${apt}/newest-engine"
    say "packages: no engine of 28 or later in sid, so the lab has the distribution's alone"
fi

dpkg-deb --root-owner-group -b "${lab_dir}/toolkit" "${apt}/toolkit/" >/dev/null

# The key lives only as long as this script: to trust it is to trust these two repositories and nothing else.
export GNUPGHOME="${work}/gnupg"
chmod 700 "${GNUPGHOME}"
gpg --batch --quiet --passphrase '' --quick-gen-key 'sparkfleet lab depot' ed25519 sign never
gpg --batch --armor --export >"${apt}/depot.asc"
for repository in distribution toolkit; do
    cd "${apt}/${repository}"
    dpkg-scanpackages --multiversion . >Packages 2>/dev/null
    {
        printf 'Origin: sparkfleet lab\nLabel: sparkfleet lab %s\nDate: %s\nSHA256:\n' "${repository}" "$(date -Ru)"
        printf ' %s %s Packages\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)"
    } >"${work}/Release"
    gpg --batch --quiet --clear-sign --output InRelease "${work}/Release"
done
gpgconf --kill all

echo "${inputs}" >"${stamp}"
say "packages: $(find "${apt}/distribution" -name '*.deb' | wc -l) packages, $(du -sh "${apt}" | cut -f1)"
