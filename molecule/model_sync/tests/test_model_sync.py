"""What the host itself shows after converge."""

from __future__ import annotations

import json

import pytest

MODELS = "/srv/sparkfleet/models"


@pytest.fixture
def lock(sudo):
    return json.loads(sudo("cat /srv/hub/lock.json"))


@pytest.fixture
def requests(sudo):
    return [json.loads(line) for line in sudo("cat /srv/hub/first.jsonl").splitlines()]


@pytest.mark.parametrize("part", ["body", "draft"])
def test_every_file_has_the_locked_hash_and_there_is_no_other(sudo, lock, part):
    model = lock[part]
    lines = sudo(f"sh -c 'cd {MODELS}/lab--{part}/{model['commit']} && find . -type f | xargs sha256sum'")
    seen = {path.removeprefix("./"): sha256 for sha256, path in (line.split() for line in lines.splitlines())}
    assert seen == {path: file["sha256"] for path, file in model["files"].items()}


def test_a_container_of_any_user_can_read_them(sudo):
    assert (
        sudo(f"find {MODELS}/lab--body/0000000000000000000000000000000000000000 -type f ! -perm 0644") == ""
    )
    assert sudo(f"find {MODELS} -type d ! -perm 0755") == ""


def test_nothing_is_left_of_what_went_wrong(sudo):
    assert sudo(f"find {MODELS} -name '.partial*'") == ""


def test_a_file_went_on_where_the_time_limit_had_stopped_it(requests):
    last = [line for line in requests if line["path"].endswith("big.bin") and line["status"] == 206][-1]
    start = int(last["range"].removeprefix("bytes=").rstrip("-"))
    assert start > 1_000_000
    assert last["bytes"] == 20_000_000 - start


def test_the_mending_fetched_one_file(sudo, requests):
    after = [json.loads(line) for line in sudo("cat /srv/hub/root/.hub-requests.jsonl").splitlines()]
    mended = {line["path"] for line in after[len(requests) :] if "/lab/body/" in line["path"]}
    assert {path.rpartition("/")[2] for path in mended} == {"big.bin"}


def test_no_process_was_left_working(sudo):
    assert "hf_snapshot" not in sudo("ps -eo args")


def test_no_file_of_the_library_in_a_home(host):
    assert not host.run("sudo find /root/.cache /home -name huggingface").stdout.strip()


def test_the_token_is_in_no_file_of_the_host(sudo, host):
    """But in the Hub's own. The brackets keep the journal's record of this very command from matching."""
    found = host.run(
        "sudo grep -rls hf_of_the_[s]cenario /root /home /srv/sparkfleet /var/log /var/lib/sparkfleet /tmp /opt"
    )
    assert found.stdout.strip() == ""
