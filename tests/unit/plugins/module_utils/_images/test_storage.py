"""An image on its way into a registry's storage: once, whole, verified, from registries that fail in every way."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.store import locked
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import oci, storage
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.registry import Credentials
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.remote import Source
from helpers.server import Handler, served

NAME = "vllm/vllm-openai"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


CONFIG = b'{"architecture": "arm64"}'
LAYERS = [bytes([n]) * (300_000 + n) for n in range(4)]
BLOBS = {digest_of(content): content for content in [CONFIG, *LAYERS]}
LARGE = digest_of(LAYERS[3])


def described(content):
    return {"mediaType": "any", "size": len(content), "digest": digest_of(content)}


BODY = json.dumps(
    {
        "schemaVersion": 2,
        "config": described(CONFIG),
        "layers": [*map(described, LAYERS), described(LAYERS[0])],
    }
).encode()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            {"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": digest_of(BODY), "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }
).encode()


class Outside(ThreadingHTTPServer):
    """A registry that serves `content` {digest: bytes} and fails as it is told.

    `cut` bytes after which the largest blob breaks off, one number a request, `status` {path part: [answers to give first]}, `requests` (path, range, auth).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.content = {digest_of(body): body for body in (*BLOBS.values(), BODY, INDEX)}
        self.ranges, self.token = True, ""
        self.cut: list[int] = []
        self.status: dict[str, list[int]] = {}
        self.requests: list[tuple[str, int, str]] = []

    def blobs(self):
        return [path.rpartition("/")[2] for path, _range, _auth in self.requests if "/blobs/" in path]


class Answers(Handler):
    server: Outside

    def do_GET(self):
        outside, auth = self.server, self.headers.get("Authorization", "")
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        outside.requests.append((self.path, begin, auth))
        if self.path.startswith("/token"):
            return self.answer(200, b'{"token": "t"}')
        if outside.token and auth != f"Bearer {outside.token}":
            return self.answer(401, WWW_Authenticate=f'Bearer realm="{outside.url}/token",service="s"')
        for part, answers in outside.status.items():
            if part in self.path and answers:
                return self.answer(answers.pop(0))
        content = outside.content.get(self.path.rpartition("/")[2])
        if content is None:
            return self.answer(404)
        partial = begin and outside.ranges
        body = content[begin:] if partial else content
        cut = outside.cut.pop(0) if outside.cut and LARGE in self.path else None
        return self.answer(206 if partial else 200, body, cut, Content_Type=MANIFEST)


@contextlib.contextmanager
def serving():
    with served(Outside()) as server:
        yield server


@pytest.fixture
def outside():
    with serving() as server:
        yield server


@pytest.fixture
def other():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(upstream.time, "sleep", lambda _seconds: None)


@pytest.fixture
def make(tmp_path):
    def store(body=BODY, **options):
        digest = digest_of(body)
        reference = parse_reference(f"{NAME}@{digest}")
        known: dict[str, Any] = {"retries": 2, "sleep": lambda _seconds: None} | options
        return storage.ImageStore(str(tmp_path / "registry"), reference, digest, "arm64", **known)

    return store


def source(server, body=BODY, credentials=None):
    return Source(server.url, parse_reference(f"{NAME}@{digest_of(body)}"), credentials)


def stored(store):
    return {
        digest: (store.root / oci.blob_path(digest)).read_bytes()
        for digest in BLOBS
        if (store.root / oci.blob_path(digest)).exists()
    }


def test_every_byte_comes_once_and_is_linked(make, outside):
    store = make()
    report = store.ensure([source(outside)])
    assert report.state == "fetched"
    assert report.fetched_bytes == sum(map(len, BLOBS.values()))
    assert report.bytes == report.fetched_bytes + len(BODY)
    assert sorted(outside.blobs()) == sorted(BLOBS)
    assert stored(store) == BLOBS
    for digest in BLOBS:
        assert (store.root / oci.layer_link(NAME, digest)).read_text() == digest
    assert (store.root / oci.manifest_link(NAME, digest_of(BODY))).read_text() == digest_of(BODY)
    assert not store.partial.exists()
    assert make().whole()


def test_a_second_run_asks_nobody(make, outside):
    make().ensure([source(outside)])
    outside.requests.clear()
    report = make().ensure([source(outside)])
    assert (report.state, report.fetched, outside.requests) == ("present", [], [])


def test_another_run_is_waited_for_and_named(make, outside):
    store, said, waits = make(), [], threading.Event()

    def say(text):
        said.append(text)
        waits.set()

    with locked(store.root, 0, print):
        thread = threading.Thread(target=make(say=say).ensure, args=([source(outside)],), daemon=True)
        thread.start()
        assert waits.wait(10)
        assert said[0] == f"waiting for process {os.getpid()}, which works in {store.root}"
        assert outside.requests == []
    thread.join(10)
    assert store.whole()


def test_of_an_index_the_hosts_platform_is_taken(make, outside):
    store = make(INDEX)
    store.ensure([source(outside, INDEX)])
    assert make(INDEX).whole()
    assert stored(store) == BLOBS
    with pytest.raises(oci.ImageError, match=r"expected linux/riscv64 .* seen linux/amd64, linux/arm64"):
        oci.read_image(digest_of(INDEX), "riscv64", lambda _digest: INDEX)


# -- attestations, which buildx puts into an index beside each platform

STATEMENT, EMPTY = b'{"_type": "https://in-toto.io/Statement/v0.1"}', b"{}"
ATTESTATION = json.dumps({"config": described(EMPTY), "layers": [described(STATEMENT)]}).encode()
ATTESTED_PARTS = [digest_of(one) for one in (ATTESTATION, EMPTY, STATEMENT)]


def attesting(attestation: bytes, of: bytes = BODY) -> dict[str, Any]:
    return {
        "digest": digest_of(attestation),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.digest": digest_of(of)},
    }


def attested_by(*attestations: dict[str, Any]) -> bytes:
    return json.dumps({"manifests": [*json.loads(INDEX)["manifests"], *attestations]}).encode()


ATTESTED = attested_by(attesting(ATTESTATION), attesting(b"of another platform", of=b"another"))


@pytest.fixture
def attested(outside):
    outside.content |= {digest_of(one): one for one in (ATTESTED, ATTESTATION, STATEMENT, EMPTY)}
    return outside


def test_the_attestation_of_the_platform_comes_along(make, attested):
    report = make(ATTESTED).ensure([source(attested, ATTESTED)])
    assert (report.state, report.lacking) == ("fetched", [])
    assert set(attested.blobs()) == {*BLOBS, *ATTESTED_PARTS[1:]}
    store = make(ATTESTED)
    assert store.whole() and store.preview().state == "present"
    assert (store.root / oci.manifest_link(NAME, ATTESTED_PARTS[0])).read_text() == ATTESTED_PARTS[0]
    (store.root / oci.blob_path(ATTESTED_PARTS[2])).unlink()
    assert not store.whole()


def test_a_storage_of_before_is_not_whole_and_is_completed(make, attested):
    store = make(ATTESTED)
    store.ensure([source(attested, ATTESTED)])
    for digest in ATTESTED_PARTS:
        (store.root / oci.blob_path(digest)).unlink()
    (store.root / oci.manifest_link(NAME, ATTESTED_PARTS[0])).unlink()
    assert not make(ATTESTED).whole()
    preview = make(ATTESTED).preview()
    assert (preview.state, preview.fetched) == ("fetched", [ATTESTED_PARTS[0]])
    attested.requests.clear()
    assert make(ATTESTED).ensure([source(attested, ATTESTED)]).state == "fetched"
    assert set(attested.blobs()) == set(ATTESTED_PARTS[1:])
    assert make(ATTESTED).whole()


@pytest.mark.parametrize("lost", ATTESTED_PARTS, ids=["manifest", "config", "layer"])
def test_an_attestation_that_nobody_has_whole_is_told_and_the_image_serves(make, attested, lost):
    del attested.content[lost]
    report = make(ATTESTED).ensure([source(attested, ATTESTED)])
    assert report.state == "fetched" and stored(make()) == BLOBS
    assert len(report.lacking) == 1 and lost in report.lacking[0]
    store = make(ATTESTED)
    assert (store.root / oci.manifest_link(NAME, digest_of(ATTESTED))).exists()
    assert not (store.root / oci.manifest_link(NAME, ATTESTED_PARTS[0])).exists()
    assert not store.whole()
    assert set(BLOBS) <= set(report.fetched) and lost not in report.fetched
    again = make(ATTESTED).ensure([source(attested, ATTESTED)])
    assert (again.state, len(again.lacking)) == ("present", 1)


def test_an_attestation_comes_from_whichever_source_has_it(make, attested, other):
    stripped = other
    stripped.content[digest_of(ATTESTED)] = ATTESTED
    report = make(ATTESTED).ensure([source(stripped, ATTESTED), source(attested, ATTESTED)])
    assert report.lacking == [] and make(ATTESTED).whole()
    assert set(attested.blobs()) == set(ATTESTED_PARTS[1:])


def test_wrong_bytes_of_an_attestation_are_never_stored(make, attested):
    attested.content[ATTESTED_PARTS[2]] = STATEMENT.replace(b"v0.1", b"v9.9")
    report = make(ATTESTED).ensure([source(attested, ATTESTED)])
    assert "other bytes than were locked" in report.lacking[0]
    assert not (make().root / oci.blob_path(ATTESTED_PARTS[2])).exists()


def test_an_attestation_that_is_no_manifest_is_told_and_the_image_serves(make, attested):
    strange = attested_by(attesting(STATEMENT))
    attested.content[digest_of(strange)] = strange
    report = make(strange).ensure([source(attested, strange)])
    assert "expected a manifest with config and layers" in report.lacking[0]
    assert stored(make()) == BLOBS


def test_a_platforms_layer_is_needed_even_where_an_attestation_names_it(make, attested):
    greedy = json.dumps({"config": described(EMPTY), "layers": [described(LAYERS[3])]}).encode()
    index = attested_by(attesting(greedy))
    attested.content |= {digest_of(greedy): greedy, digest_of(index): index}
    del attested.content[LARGE]
    with pytest.raises(upstream.NotFound):
        make(index).ensure([source(attested, index)])
    assert not make(index).whole()


def test_more_attestations_than_anybody_makes_are_refused(make, attested):
    many = attested_by(*(attesting(bytes([number])) for number in range(oci.MOST_ATTESTATIONS + 1)))
    attested.content[digest_of(many)] = many
    with pytest.raises(oci.ImageError, match=r"expected at most 16 attestations .* seen 17"):
        make(many).ensure([source(attested, many)])
    assert attested.blobs() == []


def test_the_manifest_is_linked_last(make, outside):
    outside.status = {LARGE: [404]}
    store = make()
    with pytest.raises(upstream.NotFound):
        store.ensure([source(outside)])
    assert not (store.root / oci.manifest_link(NAME, digest_of(BODY))).exists()
    assert not make().whole()


def test_what_was_fetched_before_a_failure_is_not_fetched_again(make, outside):
    outside.status = {LARGE: [404]}
    with pytest.raises(upstream.NotFound):
        make().ensure([source(outside)])
    before = set(stored(make()))
    outside.requests.clear()
    make().ensure([source(outside)])
    assert LARGE in outside.blobs()
    assert not before & set(outside.blobs())


def test_a_blob_that_breaks_off_goes_on_where_it_stopped(make, outside):
    outside.cut = [100_000]
    make().ensure([source(outside)])
    (again,) = [begin for _path, begin, _auth in outside.requests if begin]
    assert 50_000 < again <= 100_000
    assert stored(make()) == BLOBS


def test_a_line_that_breaks_often_is_borne_as_long_as_bytes_come(make, outside):
    outside.cut = [100_000] * 4
    make(retries=2).ensure([source(outside)])
    assert stored(make()) == BLOBS


def test_a_blob_without_end_is_not_read_to_its_end(make):
    def blocks():
        for _ in range(10):
            yield b"x" * 100_000
        raise AssertionError("far more than was locked was read")

    endless = SimpleNamespace(home="http://endless", blob=lambda *_: contextlib.nullcontext((0, blocks())))
    store = make()
    store.partial.mkdir(parents=True)
    seen = store._append(endless, oci.Blob(LARGE, len(LAYERS[3])), store.partial / "x", lambda _count: None)
    assert seen != LARGE


def test_a_blob_that_the_repository_is_not_said_to_have_is_missing(make, outside):
    store = make()
    store.ensure([source(outside)])
    (store.root / oci.layer_link(NAME, LARGE)).unlink()
    assert not make().whole()
    make().ensure([source(outside)])
    assert make().whole()


def test_a_part_that_an_earlier_run_left_is_gone_on_with_and_checked(make, outside):
    store = make()
    store.partial.mkdir(parents=True)
    (store.partial / LARGE.split(":")[1]).write_bytes(LAYERS[3][:1000])
    store.ensure([source(outside)])
    assert (f"/v2/{NAME}/blobs/{LARGE}", 1000) in [(path, begin) for path, begin, _auth in outside.requests]
    assert stored(store) == BLOBS


def test_a_wrong_part_of_an_earlier_run_does_not_get_in(make, outside):
    store = make()
    store.partial.mkdir(parents=True)
    (store.partial / LARGE.split(":")[1]).write_bytes(b"x" * 1000)
    store.ensure([source(outside)])
    assert stored(store) == BLOBS
    assert outside.blobs().count(LARGE) == 2


def test_a_registry_without_ranges_begins_again(make, outside):
    outside.ranges, outside.cut = False, [100_000]
    make().ensure([source(outside)])
    assert outside.blobs().count(LARGE) == 2
    assert stored(make()) == BLOBS


def test_wrong_bytes_are_never_stored(make, outside):
    outside.content[LARGE] = b"y" * len(LAYERS[3])
    store = make()
    with pytest.raises(
        upstream.Unusable, match=r"expected sha256:.*, seen sha256:.*other bytes than were locked"
    ):
        store.ensure([source(outside)])
    assert LARGE not in stored(store)
    assert not store.whole()


def test_a_longer_blob_is_never_stored(make, outside):
    outside.content[LARGE] = LAYERS[3] + b"more"
    with pytest.raises(upstream.UpstreamError):
        make().ensure([source(outside)])
    assert LARGE not in stored(make())


def test_another_manifest_is_never_stored(make, outside):
    outside.content[digest_of(BODY)] = BODY + b" "
    with pytest.raises(upstream.Unusable, match="expected the manifest"):
        make().ensure([source(outside)])


def test_what_one_source_has_wrong_comes_from_the_next(make, outside, other):
    outside.content[LARGE] = b"y" * len(LAYERS[3])
    report = make().ensure([source(outside), source(other)])
    assert stored(make()) == BLOBS
    assert set(other.blobs()) == {LARGE}
    assert report.sources == [outside.url, other.url]


def test_of_a_source_that_is_down_the_next_is_asked_and_of_all_each_is_named(make, other):
    down = Source("http://127.0.0.1:9", parse_reference(f"{NAME}@{digest_of(BODY)}"))
    make().ensure([down, source(other)])
    other.content.clear()
    with pytest.raises(upstream.UpstreamError) as raised:
        make(INDEX).ensure([down, source(other, INDEX)])
    assert "127.0.0.1:9" in str(raised.value)
    assert other.url in str(raised.value)


def test_a_source_that_does_not_answer_is_asked_once_and_not_for_every_blob(make, outside, other):
    outside.status = {"/blobs/": [503] * 1000}
    waits: list[float] = []
    report = make(sleep=waits.append).ensure([source(outside), source(other)])
    # As many as are under way when it is found out.
    assert len(waits) <= 2 * storage.WORKERS and len(set(outside.blobs())) <= storage.WORKERS
    assert set(other.blobs()) == set(BLOBS) and stored(make()) == BLOBS
    assert report.sources == [outside.url, other.url]


def test_busy_is_waited_for_and_in_the_end_told(make, outside):
    outside.status = {LARGE: [429, 500, 503, 502]}
    waits: list[float] = []
    with pytest.raises(upstream.Unreachable, match="seen 503"):
        make(sleep=waits.append).ensure([source(outside)])
    assert waits == [1.0, 2.0]
    make().ensure([source(outside)])
    assert stored(make()) == BLOBS


def test_a_blob_that_rots_is_found_and_only_it_is_fetched_again(make, outside):
    store = make()
    store.ensure([source(outside)])
    path = store.root / oci.blob_path(LARGE)
    path.write_bytes(b"z" * len(LAYERS[3]))
    outside.requests.clear()
    assert make().whole(), "by size it is"
    report = make().ensure([source(outside)])
    assert report.state == "repaired"
    assert report.damaged == [f"{LARGE}: seen {digest_of(b'z' * len(LAYERS[3]))}"]
    assert outside.blobs() == [LARGE]
    assert stored(store) == BLOBS


def test_a_rotten_blob_is_taken_out_before_a_new_one_is_there(make, outside):
    store = make()
    store.ensure([source(outside)])
    (store.root / oci.blob_path(LARGE)).write_bytes(b"z" * len(LAYERS[3]))
    outside.content.pop(LARGE)
    with pytest.raises(upstream.NotFound):
        make().ensure([source(outside)])
    assert LARGE not in stored(store)


def test_room_is_asked_for_before_the_first_byte(make, outside, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_300_000))
    with pytest.raises(storage.ImageStoreError, match=r"expected 1\.4 MB free .* seen 1\.3 MB; make room"):
        make(reserve=200_000).ensure([source(outside)])
    assert outside.blobs() == []


def test_a_token_is_fetched_where_the_registry_says_and_the_password_goes_there_only(make, outside, other):
    outside.token = "t"
    outside.content.pop(LARGE)
    make().ensure([source(other), source(outside, credentials=Credentials("me", "secret"))])
    assert {auth for _path, _begin, auth in other.requests} == {""}
    assert outside.requests == []
    other.content.clear()
    outside.content[LARGE] = LAYERS[3]
    (make().root / oci.blob_path(LARGE)).unlink()
    make().ensure([source(other), source(outside, credentials=Credentials("me", "secret"))])
    seen = {
        (path.partition("?")[0].split("/")[1], auth.split()[0] if auth else "")
        for path, _b, auth in outside.requests
    }
    assert seen == {("v2", ""), ("token", "Basic"), ("v2", "Bearer")}


def test_a_preview_asks_nobody(make, outside):
    report = make().preview()
    assert (report.state, report.bytes) == ("fetched", 0)
    assert not make().root.exists()
    make().ensure([source(outside)])
    assert make().preview().state == "present"


@pytest.mark.parametrize(
    "body", [b"<html>", gzip.compress(b"x", mtime=0), b"{}", b'{"config": 1, "layers": []}']
)
def test_a_manifest_that_is_none_is_told(body):
    with pytest.raises(oci.ImageError, match="expected a manifest"):
        oci.read_image(digest_of(body), "arm64", lambda _digest: body)


HOSTILE = [
    "sha256:/etc/cron.d/x",
    "sha256:../../x",
    "sha256:" + "A" * 64,
    digest_of(b"") + "\n",
    "/etc",
    "",
    5,
    None,
    ["x"],
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("part", ["config", "layer", "manifest", "attestation"])
def test_a_name_that_is_no_digest_becomes_no_path(make, outside, tmp_path, part, name):
    """A registry, or who publishes the image, writes what it likes into a manifest."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    name = str(victim) if name == "/etc" else name
    if part == "manifest":
        platform = {"os": "linux", "architecture": "arm64"}
        body: dict[str, Any] = {"manifests": [{"digest": name, "platform": platform}]}
    elif part == "attestation":
        body = {"manifests": [*json.loads(INDEX)["manifests"], attesting(ATTESTATION) | {"digest": name}]}
    else:
        evil = {"digest": name, "size": 1}
        body = (
            {"config": evil, "layers": []}
            if part == "config"
            else {"config": described(CONFIG), "layers": [evil]}
        )
    text = json.dumps(body).encode()
    outside.content[digest_of(text)] = text
    store = make(text)
    with pytest.raises(
        oci.ImageError, match=r"expected sha256: and 64 hexadecimal digits.*do not use this image"
    ):
        store.ensure([source(outside, text)])
    assert outside.blobs() == []
    assert victim.read_text() == "kept"
    assert not store.partial.exists()


@pytest.mark.parametrize(
    "path",
    [oci.blob_path, lambda name: oci.layer_link("o/n", name), lambda name: oci.manifest_link("o/n", name)],
)
def test_no_path_is_made_of_anything_but_a_digest(path):
    for name in HOSTILE:
        with pytest.raises(oci.ImageError):
            path(name)


@pytest.mark.parametrize("size", [-1, 1.5, "7", True, None])
def test_a_size_that_is_none_is_told(size):
    body = json.dumps({"config": described(CONFIG) | {"size": size}, "layers": []}).encode()
    with pytest.raises(oci.ImageError, match="expected its size in bytes"):
        oci.read_image(digest_of(body), "arm64", lambda _digest: body)


@pytest.mark.parametrize(
    "manifests",
    [5, [5], {"a": 1}, [{"platform": 5}], [{"platform": {"os": "linux", "architecture": "arm64"}}], None],
)
def test_an_index_that_is_none_is_told(manifests):
    body = json.dumps({"manifests": manifests}).encode()
    with pytest.raises(oci.ImageError, match="expected an index of manifests"):
        oci.read_image(digest_of(body), "arm64", lambda _digest: body)


def test_a_manifest_that_nests_for_ever_is_told():
    body = b"[" * 100_000
    with pytest.raises(oci.ImageError, match="expected a manifest"):
        oci.read_image(digest_of(body), "arm64", lambda _digest: body)


def test_the_layout_is_the_registrys():
    digest = "sha256:" + "ab" * 32
    assert oci.blob_path(digest) == f"docker/registry/v2/blobs/sha256/ab/{'ab' * 32}/data"
    assert (
        oci.layer_link("o/n", digest)
        == f"docker/registry/v2/repositories/o/n/_layers/sha256/{'ab' * 32}/link"
    )
    assert (
        oci.manifest_link("o/n", digest)
        == f"docker/registry/v2/repositories/o/n/_manifests/revisions/sha256/{'ab' * 32}/link"
    )
    assert not Path(oci.blob_path(digest)).is_absolute()


def test_a_tag_stands_for_an_image_that_is_whole(make, outside):
    store, reference = make(), parse_reference(f"{NAME}:main-1")
    with pytest.raises(
        storage.ImageStoreError, match=r"expected sha256:\w+ whole before it is called main-1"
    ):
        store.tag("main-1")
    assert storage.tagged(str(store.root), reference) == ""
    assert storage.tagged(str(store.root), store.reference) == "", "a reference without a tag"
    store.ensure([source(outside)])
    store.tag("main-1")
    assert storage.tagged(str(store.root), reference) == digest_of(BODY)
    (store.root / oci.tag_link(NAME, "main-1")).write_text("something else")
    assert storage.tagged(str(store.root), reference) == ""


def test_what_nobody_outside_has_is_not_asked_for_and_told(make, outside):
    store = make()
    with pytest.raises(storage.ImageStoreError, match=r"nobody outside has it.*sparkfleet\.vllm\.build"):
        store.ensure([])
    store.ensure([source(outside)])
    assert make().ensure([]).state == "present"
    path = store.root / oci.blob_path(LARGE)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(storage.ImageStoreError, match="nobody outside has it"):
        make().ensure([])
