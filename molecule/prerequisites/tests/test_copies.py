"""A lab host that is a copy of one that was set up is a host of its own, and has nothing of the other's life."""

from __future__ import annotations

import subprocess

import pytest

COPIES = {"copy-1": "172.31.250.43", "copy-2": "172.31.250.44"}
OWN = {
    "machine": "cat /etc/machine-id",
    "machine, as D-Bus knows it": "cat /var/lib/dbus/machine-id",
    "host key": "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub",
    "engine": "docker info --format '{{ .ID }}'",
    "network of the engine": "docker network inspect --format '{{ .Id }}' bridge",
    "name": "hostname",
    "address": "ip -4 -o address show dev eth0 | awk '{ print $4 }' | cut -d/ -f1",
    "link": "cat /sys/class/net/eth0/address",
    "boot": "cat /proc/sys/kernel/hostname; ls /var/log/journal",
}


@pytest.fixture(scope="module")
def copies():
    """What each says of itself."""

    def ask(host, command):
        words = ["docker", "exec", f"sparkfleet-lab-{host}", "sh", "-eu", "-c", command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    return {host: {what: ask(host, command) for what, command in OWN.items()} for host in COPIES}


@pytest.mark.parametrize("what", OWN)
def test_what_is_a_hosts_own_is_not_the_others(copies, what):
    one, other = (copies[host][what] for host in COPIES)
    assert one and other and one != other


@pytest.mark.parametrize(("host", "address"), COPIES.items())
def test_it_has_the_name_and_address_of_its_inventory(copies, host, address):
    assert (copies[host]["name"], copies[host]["address"]) == (host, address)
    assert copies[host]["machine"] == copies[host]["machine, as D-Bus knows it"]
    assert copies[host]["boot"] == f"{host}\n{copies[host]['machine']}", (
        "the journal is of this machine alone"
    )


@pytest.mark.parametrize("host", COPIES)
def test_nothing_lies_there_but_what_sets_a_host_up(host):
    def run(*command):
        done = subprocess.run(
            ["docker", "exec", f"sparkfleet-lab-{host}", *command], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert run("docker", "ps", "--all", "--quiet") == run("docker", "images", "--quiet") == []
    # Empty, and root's alone: what images compile will lie in it.
    assert run("find", "/srv/sparkfleet", "/var/lib/sparkfleet", "-mindepth", "1") == [
        "/srv/sparkfleet/cache"
    ]
