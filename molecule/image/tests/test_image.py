"""What the hosts themselves show after converge."""

from __future__ import annotations

import json

import pytest

STORAGE = "/srv/sparkfleet/registry"


@pytest.fixture
def image(host):
    """An image as the ledger of the host names it: of one manifest, or the index with the attestation."""
    content = json.loads(host.run("sudo cat /var/lib/sparkfleet/images.json").stdout)
    assert content["version"] == 1
    assert len(content["images"]) == 2
    return content["images"][0]


def test_the_image_is_there_under_the_digest_that_was_asked_for(sudo, image):
    assert image.startswith("sparkfleet-lab/stub@sha256:")
    assert image in json.loads(sudo(f"docker image inspect --format '{{{{ json .RepoDigests }}}}' {image}"))


def test_it_runs(sudo, image):
    assert sudo(f"docker run --rm --network none --entrypoint python3 {image} -c 'print(6 * 7)'") == "42"


def test_the_engine_asks_the_fleets_registry_before_the_other_mirrors(sudo):
    mirrors = json.loads(sudo("docker info --format '{{ json .RegistryConfig.Mirrors }}'"))
    assert mirrors[0] == "http://172.31.250.81:5000/"
    assert len(mirrors) == 2


def test_only_one_host_has_a_registry(host, name):
    assert host.file("/usr/bin/docker-registry").exists == (name == "one")
    assert host.file(STORAGE).exists == (name == "one")


@pytest.fixture
def service(host, name):
    if name != "one":
        pytest.skip("the registry is elsewhere")
    return host.service("sparkfleet-registry")


def test_the_registry_comes_back_at_boot_and_the_packages_own_does_not(host, service):
    assert service.is_running and service.is_enabled
    assert host.run("systemctl is-enabled docker-registry").stdout.strip() == "masked"


def test_the_registry_listens_on_the_fleets_address_only(sudo, service):
    listens = [line.split()[3] for line in sudo("ss -ltnH sport = :5000").splitlines()]
    assert listens == ["172.31.250.81:5000"]


def test_the_registry_takes_nothing(host, service):
    pushed = host.run(
        "curl -s -o /dev/null -w '%{http_code}' -X POST http://172.31.250.81:5000/v2/any/blobs/uploads/"
    )
    assert pushed.stdout == "405"


def test_the_registry_runs_as_nobody_in_particular_and_cannot_write_its_storage(sudo, service):
    pid = sudo("systemctl show --property MainPID --value sparkfleet-registry")
    user = sudo(f"ps -o user= -p {pid}")
    assert user != "root"
    status = sudo(f"cat /proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert sudo(f"find {STORAGE} -not -user root -o -perm /022") == ""


def test_every_byte_of_the_storage_is_what_its_name_says(sudo, service):
    """It was damaged twice; the last run that needed it mended it."""
    wrong = []
    for path in sudo(f"find {STORAGE}/docker/registry/v2/blobs -name data").splitlines():
        if sudo(f"sha256sum {path}").split()[0] != path.split("/")[-2]:
            wrong.append(path)
    assert wrong == [], wrong


def test_nothing_half_is_left(sudo, service):
    assert sudo(f"find {STORAGE} -path '*.partial*'") == ""
