from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import hub
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.hub import (
    Hub,
    HubError,
    resolve_manifest,
)
from helpers.hostile_server import dribbling
from helpers.hub import COMMIT, lab_hub
from helpers.server import Handler, served

WEIGHTS = bytes(range(256)) * 20_000
FILES = {
    "config.json": b'{"vocab_size": 8}\n',
    "README.md": "größer\n".encode(),
    "sub/tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "empty.txt": b"",
}


@pytest.fixture
def lab(tmp_path):
    with lab_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(lab, waits):
    return Hub(lab.url, retries=3, sleep=waits.append)


def test_a_revision_resolves_to_commit_sizes_and_sha256(lab, client):
    expected = lab.add("org/body", FILES, refs={"v1": COMMIT})
    for revision in ("main", "v1", COMMIT):
        assert client.resolve_manifest("org/body", revision) == {**expected, "revision": revision}


def test_large_files_are_not_fetched_to_resolve(lab, client):
    lab.add("org/body", FILES)
    client.resolve_manifest("org/body", "main")
    assert not [line for line in lab.requests() if line["path"].endswith(".safetensors")]
    assert len(lab.requests()) == 1 + 4


def test_thousands_of_files_resolve(lab, client):
    files = {f"shards/{index:04}.bin": b"%d" % index for index in range(2500)}
    assert lab.add("org/many", files)["files"] == client.resolve_manifest("org/many", "main")["files"]


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_unknown_repository(lab, token):
    with pytest.raises(
        HubError, match=r"org/nope at main to exist, seen HTTP 40[14].*no such repository"
    ) as raised:
        Hub(lab.url, token).resolve_manifest("org/nope", "main")
    assert "token" in str(raised.value)
    assert len(lab.requests()) == 1


def test_unknown_revision(lab, client):
    lab.add("org/body", FILES)
    with pytest.raises(HubError, match=r"org/body at v9 to exist.*no such revision; correct the branch"):
        client.resolve_manifest("org/body", "v9")


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, r"HTTP 401 .*without a token: the repository is gated; set a token"),
        ("hf_stranger", r"HTTP 403 .*with the token given: the repository is gated; ask for access"),
        ("expired", r"HTTP 401 .*with the token given; renew the token"),
    ],
)
def test_gated_repository_without_access(lab, token, message):
    lab.add("org/gated", FILES, gated=True, tokens=["hf_friend"])
    with pytest.raises(HubError, match=message) as raised:
        Hub(lab.url, token).resolve_manifest("org/gated", "main")
    assert token is None or token not in str(raised.value)


def test_gated_repository_with_access(lab):
    expected = lab.add("org/gated", FILES, gated=True, tokens=["hf_friend"])
    assert resolve_manifest("org/gated", "main", lab.url, "hf_friend")["files"] == expected["files"]


def test_too_many_requests_waits_as_told_then_goes_on(lab, client, waits):
    expected = lab.add("org/body", FILES)
    lab.faults({"match": "GET /api", "kind": "status", "status": 429, "retry_after": 7, "times": 2})
    assert client.resolve_manifest("org/body", "main")["files"] == expected["files"]
    assert waits == [7, 7]


def test_too_many_requests_for_ever_is_bounded(lab, client, waits):
    lab.add("org/body", FILES)
    lab.faults({"match": ".", "kind": "status", "status": 429, "retry_after": 7})
    with pytest.raises(HubError, match="HTTP 429 .*too many requests.*retry after 7 s; run again later"):
        client.resolve_manifest("org/body", "main")
    assert waits == [7, 7, 7]


def test_an_absurd_retry_after_is_not_waited_for(lab, client, waits):
    lab.add("org/body", FILES)
    lab.faults({"match": ".", "kind": "status", "status": 429, "retry_after": 86400})
    with pytest.raises(HubError, match="retry after 86400 s"):
        client.resolve_manifest("org/body", "main")
    assert waits == []


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_server_errors_are_tried_again_and_bounded(lab, client, waits, status):
    expected = lab.add("org/body", FILES)
    lab.faults({"match": "GET /api", "kind": "status", "status": status, "times": 1})
    assert client.resolve_manifest("org/body", "main")["files"] == expected["files"]
    assert waits == [1]
    lab.faults({"match": "GET /api", "kind": "status", "status": status})
    with pytest.raises(HubError, match=f"HTTP {status}"):
        client.resolve_manifest("org/body", "main")
    assert waits == [1, 1, 2, 4]


def test_a_small_file_with_other_bytes_never_enters_a_lock(lab, client):
    expected = lab.add("org/body", FILES)
    lab.faults({"match": r"config\.json", "kind": "corrupt", "times": 1})
    assert client.resolve_manifest("org/body", "main")["files"] == expected["files"]
    lab.faults({"match": r"config\.json", "kind": "corrupt"})
    with pytest.raises(
        HubError, match=r"expected git oid [0-9a-f]{40} of org/body/config.json.*seen [0-9a-f]{40}"
    ):
        client.resolve_manifest("org/body", "main")


def test_hub_that_is_down(client, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        HubError, match="no whole answer from http://127.0.0.1.*check the endpoint, the network"
    ):
        Hub(address, retries=1, sleep=waits.append).resolve_manifest("org/body", "main")
    assert waits == [1]


def test_something_that_is_no_hub(lab, client):
    lab.add("org/body", FILES)
    (lab.root / "org/body/.hub.json").write_text('{"commit": "x"}')
    with pytest.raises(HubError, match="is the endpoint a Hugging Face Hub"):
        Hub(f"{lab.url}/elsewhere", retries=0).resolve_manifest("org/body", "main")


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://x", "https://user:secret@x", "https://x/?a=1", ""]
)
def test_a_bad_endpoint_is_refused(endpoint):
    with pytest.raises(HubError, match="expected an endpoint such as"):
        Hub(endpoint)


def test_a_token_that_would_be_quoted_by_the_http_library_is_refused_unquoted():
    with pytest.raises(HubError, match="a token in one word") as raised:
        Hub(token="hf_secret\n")
    assert "secret" not in str(raised.value)
    assert "hf_" not in repr(Hub(token="hf_secret"))


def test_a_name_that_leaves_the_repository_is_refused(lab, client, monkeypatch):
    lab.add("org/body", FILES)
    monkeypatch.setattr(lab.server, "blob", lambda *_: lab_blob("../../etc/passwd"))
    with pytest.raises(HubError, match="stay inside it, seen .*it leaves the snapshot"):
        client.resolve_manifest("org/body", "main")


def lab_blob(path):
    from lab_hub import Blob

    return Blob(path, 1, "0" * 40, "0" * 64, True)


# -- a Hub that is not quite the Hub


class Mirror:
    """Answers with one list, and each file with the same bytes."""

    def __init__(self, listed, data=b"x", status=200, **headers):
        self.paths = paths = []

        class Answers(Handler):
            def do_GET(self):
                paths.append(self.path)
                body = json.dumps(listed).encode() if "/api/" in self.path else data
                self.answer(status, body, **headers)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def ask(self, token=None):
        with served(self.server), pytest.raises(HubError) as raised:
            Hub(self.url, token, retries=0).resolve_manifest("org/body", "main")
        return str(raised.value)


SMALL = {"rfilename": "config.json", "size": 1, "blobId": "0" * 40}
LARGE = {"rfilename": "model.safetensors", "lfs": {"size": 1, "sha256": "0" * 64}}


@pytest.mark.parametrize(
    "bare",
    [
        {"rfilename": "model.safetensors"},
        SMALL | {"blobId": None},
        SMALL | {"size": -1},
        SMALL | {"size": True},
        LARGE | {"lfs": {"size": 1}},
        LARGE | {"lfs": {"size": 1, "sha256": "../x"}},
        LARGE | {"lfs": {"size": 1.5, "sha256": "0" * 64}},
    ],
)
def test_a_mirror_that_gives_no_checksums_is_named_before_a_file_is_fetched(bare):
    mirror = Mirror({"sha": COMMIT, "siblings": [SMALL, bare, LARGE]})
    told = mirror.ask()
    assert (
        "1 of 3 without them" in told and "a mirror that gives no checksums: lock from https://hugg" in told
    )
    assert len(mirror.paths) == 1


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], "expected a commit of 40"),
        ({"siblings": [SMALL]}, "expected a commit of 40 hexadecimal digits, seen None"),
        ({"sha": "../../../tmp/x", "siblings": [SMALL]}, "seen '../../../tmp/x'"),
        ({"sha": COMMIT}, "expected to list 1 to 49999 files, seen none"),
        ({"sha": COMMIT, "siblings": []}, "seen 0"),
        ({"sha": COMMIT, "siblings": [5]}, "expected a file with its rfilename, seen 5"),
        ({"sha": COMMIT, "siblings": [{"rfilename": ["a"]}]}, "expected a file with its rfilename"),
    ],
)
def test_a_list_of_another_shape_is_told(listed, expected):
    told = Mirror(listed).ask()
    assert expected in told and "is this the right repository" in told


def test_what_is_read_into_memory_is_bounded(monkeypatch):
    listed = {"sha": COMMIT, "siblings": [SMALL]}
    assert "expected at most 1 bytes of org/body/config.json" in Mirror(listed, b"x" * 100_000).ask()
    mirror = Mirror({"sha": COMMIT, "siblings": [SMALL | {"size": hub.SMALL_FILE + 1}]})
    assert "config.json outside it" in mirror.ask() and len(mirror.paths) == 1
    monkeypatch.setattr(hub, "LISTING_BYTES", 50)
    assert "expected at most 50 bytes of org/body at main" in Mirror(listed).ask()
    monkeypatch.setattr(hub, "LISTING_BYTES", 5000)
    monkeypatch.setattr(hub, "LONGEST_ANSWER", -1)
    assert "no end of it" in Mirror(listed).ask()


def test_a_failure_without_end_is_not_read():
    begin = b"HTTP/1.1 403 No\r\nX-Error-Message: go away\r\n\r\n"
    with dribbling(begin, b"x" * 65536, every=0) as url, pytest.raises(HubError, match="go away"):
        Hub(url, retries=0).resolve_manifest("org/body", "main")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429])
def test_what_the_hub_says_itself_is_passed_on_fit_for_a_terminal(status):
    token = "hf_" + "a" * 34
    said = f"Quota\x1b]0;title\x07 of \t {token} is  used up " + "z" * 500
    told = Mirror({}, status=status, X_Error_Message=said).ask(token)
    assert "(Quota ]0;title of … is used up zzz" in told
    assert token not in told and told.isprintable() and len(told) < 600


@pytest.mark.parametrize("token", [None, "hf_" + "a" * 34])
def test_no_token_is_asked_for_where_none_helps(token):
    told = Mirror({}, status=403, X_Error_Message="Access to this resource is disabled.").ask(token)
    assert "HTTP 403 (Access to this resource is disabled.)" in told
    assert told.endswith("take another repository: no token opens this one")


# -- files


def target_of(tmp_path: Path) -> Path:
    return tmp_path / "part"


def test_a_download_is_one_request(lab, client, tmp_path):
    lab.add("org/body", FILES)
    got: list[Any] = []
    client.load()
    client.download("org/body", COMMIT, "model.safetensors", len(WEIGHTS), target_of(tmp_path), got.append)
    assert target_of(tmp_path).read_bytes() == WEIGHTS
    assert sum(got) == len(WEIGHTS)
    assert [line["method"] for line in lab.requests()] == ["GET"]


def test_a_download_goes_on_where_it_stopped(lab, client, tmp_path):
    lab.add("org/body", FILES)
    target_of(tmp_path).write_bytes(WEIGHTS[:1_000_000])
    client.load()
    client.download("org/body", COMMIT, "model.safetensors", len(WEIGHTS), target_of(tmp_path))
    assert target_of(tmp_path).read_bytes() == WEIGHTS
    assert [line["range"] for line in lab.requests()] == ["bytes=1000000-"]


def test_a_body_cut_short_goes_on_in_the_same_run(lab, client, tmp_path, waits):
    lab.add("org/body", FILES)
    lab.faults({"match": "safetensors", "kind": "truncate", "after": 1_500_000, "times": 3})
    client.load()
    client.download("org/body", COMMIT, "model.safetensors", len(WEIGHTS), target_of(tmp_path))
    assert target_of(tmp_path).read_bytes() == WEIGHTS
    assert [line["range"] for line in lab.requests()][1:] == [
        "bytes=1500000-",
        "bytes=3000000-",
        "bytes=4500000-",
    ]
    assert sum(line["bytes"] for line in lab.requests()) == len(WEIGHTS)


def test_a_body_that_is_always_cut_short_is_bounded(lab, client, tmp_path, waits):
    lab.add("org/body", FILES)
    lab.faults({"match": "safetensors", "kind": "truncate", "after": 1000})
    client.load()
    with pytest.raises(HubError, match=r"org/body/model.safetensors at c4bbb.*no whole answer"):
        client.download("org/body", COMMIT, "model.safetensors", len(WEIGHTS), target_of(tmp_path))
    assert len(lab.requests()) == 4


@pytest.mark.parametrize(("size", "seen"), [(10, "more than 10"), (len(WEIGHTS) + 1, str(len(WEIGHTS)))])
def test_a_file_of_another_size_is_an_error(lab, client, tmp_path, size, seen):
    lab.add("org/body", FILES)
    client.load()
    with pytest.raises(
        HubError, match=rf"expected {size} bytes of .*, seen (no )?{seen.replace('than', '.*')}|no more"
    ):
        client.download("org/body", COMMIT, "model.safetensors", size, target_of(tmp_path))


def test_large_files_behind_a_redirect(lab, client, tmp_path):
    lab.add("org/body", FILES, redirect=True)
    target_of(tmp_path).write_bytes(WEIGHTS[:5])
    client.load()
    client.download("org/body", COMMIT, "model.safetensors", len(WEIGHTS), target_of(tmp_path))
    assert target_of(tmp_path).read_bytes() == WEIGHTS
    assert [line["status"] for line in lab.requests()] == [302, 206]


def test_the_library_brings_the_same_file(lab, client, tmp_path):
    lab.add("org/body", FILES, gated=True, tokens=["hf_friend"])
    hub = Hub(lab.url, "hf_friend")
    hub.load()
    path = hub.download_with_library("org/body", COMMIT, "sub/tokenizer.json", tmp_path)
    assert path == tmp_path / "sub/tokenizer.json"
    assert path.read_bytes() == FILES["sub/tokenizer.json"]


def test_the_library_never_passes_off_an_old_file_when_the_hub_is_down(lab, tmp_path):
    lab.add("org/body", FILES)
    hub = Hub(lab.url, retries=0)
    hub.load()
    hub.download_with_library("org/body", COMMIT, "config.json", tmp_path)
    (tmp_path / "config.json").write_bytes(b"old")
    lab.add("org/body", FILES, gated=True)
    with pytest.raises(HubError, match="gated"):
        hub.download_with_library("org/body", COMMIT, "config.json", tmp_path)


def test_what_the_environment_says_does_not_leak_in(lab, tmp_path):
    """In a process of its own, because the library reads its environment at its import."""
    expected = lab.add("org/body", FILES)
    home = tmp_path / "home"
    (home / ".cache/huggingface").mkdir(parents=True)
    (home / ".cache/huggingface/token").write_text("hf_of_root")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.sparkfleet.vllm.plugins.module_utils._models.hub import Hub\n"
        "hub = Hub(sys.argv[2], retries=0)\n"
        "print(hub.resolve_manifest('org/body', 'main')['commit'])\n"
        "from huggingface_hub import constants\n"
        "print(constants.HF_HUB_DISABLE_XET, constants.HF_XET_HIGH_PERFORMANCE, constants.ENDPOINT == sys.argv[2])\n"
    )
    collections = str(Path(__file__).resolve().parents[5] / ".cache/collections")
    bad = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": "hf_of_env",
        "HOME": str(home),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, collections, lab.url],
        env={**os.environ, **bad},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [expected["commit"], "True", "False", "True"], done.stderr
    assert not any(line["token"] for line in lab.requests())
    assert [path.name for path in (home / ".cache/huggingface").iterdir()] == ["token"]
