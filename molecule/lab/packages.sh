#!/usr/bin/env bash
# Fetches once, from the mirror that this machine's apt is configured with, every distribution package the lab
# needs, and makes two signed apt repositories of them under the depot's www/apt:
#   distribution   what a mirror of the distribution would offer a Spark
#   toolkit        nvidia-container-toolkit, a stand-in (see toolkit/control)
# The images are then built from the first one, without any network.
# shellcheck source=molecule/lab/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

codename=$(. /etc/os-release && echo "${VERSION_CODENAME}")
apt="${lab_cache}/depot/www/apt"
stamp="${apt}/.inputs"
apt_install dpkg-dev gnupg

# Also tells a machine whose mirror has moved on from one that has not: a security update makes new images.
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

# Only the distribution's own sources: other repositories of this machine are none of the lab's business. The lists
# are the ones apt-get update has verified; only the choice among them is ours.
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

# An empty package database: everything is resolved, whatever this machine has installed.
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

dpkg-deb --root-owner-group -b "${lab_dir}/toolkit" "${apt}/toolkit/" >/dev/null

# A key that lives as long as this script: whoever trusts it trusts these two repositories and nothing more.
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
