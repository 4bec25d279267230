from __future__ import annotations

import hashlib

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common.upstream import (
    Answer,
    NotFound,
    Unauthorized,
    Unreachable,
    Unusable,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import registry as registries
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import (
    parse_reference,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.registry import Credentials, resolve
from helpers.bounded import ends
from helpers.recipe import IMAGE, TAG, depot

DIGEST = "sha256:" + "a" * 64
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def registry():
    with depot() as server:
        yield server


@pytest.fixture
def home(registry, monkeypatch):
    """The test registry in Docker Hub's place."""
    monkeypatch.setattr(registries, "DOCKER_HUB_API", registry.url)
    monkeypatch.setattr(upstream.time, "sleep", lambda _s: None)
    return registry


HUB = parse_reference(f"{IMAGE}:{TAG}")


@pytest.mark.parametrize(
    ("registry", "address"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("depot:5000", "https://depot:5000"),
    ],
)
def test_only_a_loopback_registry_is_asked_without_tls(registry, address):
    assert registries.endpoint(registry) == address


def test_a_challenge_without_end_takes_no_time():
    code = (
        f"from {registries.__name__} import challenges; print(len(challenges('Bearer ' + 'a' * 1_000_000)))"
    )
    assert ends(code) == "2\n"
    for text in ('a="', 'a=\\\\"', "a = ", '"', "=", " "):
        ends(f"from {registries.__name__} import challenges; challenges({text!r} * 200_000)")


def test_a_challenge_in_its_parts():
    header = (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'
    )
    bearer = {
        "realm": "https://auth.docker.io/token",
        "service": "registry.docker.io",
        "scope": "repository:a/b:pull",
    }
    assert registries.challenges(header) == {"bearer": bearer}
    assert registries.challenges("") == {}
    basic = {"realm": 'a "quoted" one, with Bearer realm=x in it', "charset": "UTF-8"}
    for several in (
        f'{header}, Basic realm="a \\"quoted\\" one, with Bearer realm=x in it", charset=UTF-8',
        f'basic realm="a \\"quoted\\" one, with Bearer realm=x in it" , charset="UTF-8",{header}',
    ):
        assert registries.challenges(several) == {"bearer": bearer, "basic": basic}
    assert registries.challenges(f"Negotiate, {header}, Bearer realm=late") == {
        "negotiate": {},
        "bearer": bearer,
    }
    assert registries.challenges(f"Negotiate YWJj==, {header}")["bearer"] == bearer


ALICE = Credentials("alice", "secret")


def authorized(header, credentials=None, body=b'{"token": "t"}'):
    """(what is sent, the questions to the token service)"""
    asked = []

    def ask(method, url, **options):
        asked.append((url, options["params"], options["authorization"]))
        return Answer(200, {}, body)

    answer = Answer(401, {"WWW-Authenticate": header})
    return registries.authorize(answer, "https://r.example", "team/vllm", credentials, ask), asked


def test_a_token_is_taken_where_one_is_offered_and_a_password_sent_where_none_is():
    bearer, basic = 'Bearer realm="https://r.example/token"', 'Basic realm="x"'
    for header in (bearer, f"{bearer}, {basic}", f"{basic}, {bearer}", f"Negotiate, {bearer}"):
        assert authorized(header, ALICE)[0] == "Bearer t"
        assert authorized(header)[0] == "Bearer t"
    assert authorized(basic, ALICE) == (ALICE.basic, [])
    assert authorized(f"Negotiate, {basic}", ALICE) == (ALICE.basic, [])
    assert authorized(basic) == authorized("Negotiate", ALICE) == authorized("", ALICE) == (None, [])


def test_a_token_is_asked_for_with_the_scope_named_or_that_of_a_pull():
    realm = 'Bearer realm="https://r.example/token"'
    pull = {"scope": "repository:team/vllm:pull"}
    assert [asked for _url, asked, _auth in authorized(realm)[1]] == [pull]
    assert authorized(f'{realm},service="reg",scope=""')[1][0][1] == pull | {"service": "reg"}
    assert authorized(f'{realm},scope="*"')[1][0][1] == {"scope": "*"}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": null}', b"[" * 100_000, b"\xff"])
def test_a_token_that_is_none_is_told(body):
    with pytest.raises(Unusable, match="expected a token"):
        authorized('Bearer realm="https://r.example/token"', body=body)
    assert (
        authorized('Bearer realm="https://r.example/t"', body=b'{"token": null, "access_token": "a"}')[0]
        == "Bearer a"
    )


def test_a_token_service_that_is_no_address_is_told():
    with pytest.raises(Unusable, match=r"the address of its token service, seen 'http://\[x'"):
        authorized('Bearer realm="http://[x"', ALICE)


def test_the_digest_is_asked_with_one_head_and_no_pull(home):
    answer = resolve(HUB)
    assert (answer.digest, answer.by, answer.notes) == (home.digest(), home.url, ())
    assert [method for method, _path, _auth in home.requests] == ["HEAD"]


def test_without_the_header_the_digest_is_that_of_the_manifest(home):
    home.digest_header = False
    assert resolve(HUB).digest == "sha256:" + hashlib.sha256(b'{"schemaVersion": 2}').hexdigest()


def test_docker_hubs_anonymous_token_flow(home):
    home.scheme = "bearer"
    assert resolve(HUB).digest == home.digest()
    assert [auth for _method, _path, auth in home.requests] == ["", "", "Bearer t-anonymous"]
    assert (
        home.requests[1][1] == f"/token?service=depot&scope=repository%3A{IMAGE.replace('/', '%2F')}%3Apull"
    )


def test_credentials_get_a_token_of_their_own(home):
    home.scheme, home.password, home.anonymous_tokens = "bearer", ("me", "secret"), False
    assert resolve(HUB, credentials=Credentials("me", "secret")).digest == home.digest()
    with pytest.raises(Unauthorized, match="check the registry's user name and password") as refused:
        resolve(HUB, credentials=Credentials("me", "wrong"))
    assert "wrong" not in str(refused.value)
    assert "secret" not in repr(Credentials("me", "secret"))


def test_a_private_repository_says_what_to_set(home):
    home.scheme, home.password = "bearer", ("me", "secret")
    with pytest.raises(Unauthorized, match="HTTP 401 without credentials: an unknown or private repository"):
        resolve(HUB)


def test_a_password_is_not_sent_without_tls_to_another_host():
    def ask(method, url, **kwargs):
        assert "authorization" not in kwargs
        return Answer(401, {"WWW-Authenticate": 'Bearer realm="http://elsewhere.example/token"'})

    with pytest.raises(Unauthorized, match="refused"):
        resolve(HUB, credentials=Credentials("me", "secret"), ask=ask)


def test_an_unknown_tag_is_not_found(home):
    with pytest.raises(NotFound, match="unknown tag or repository"):
        resolve(parse_reference(f"{IMAGE}:other"))


def test_a_mirror_is_asked_first_and_without_credentials(home):
    with depot() as mirror:
        mirror.manifests[f"{IMAGE}:{TAG}"] = b'{"of": "the mirror"}'
        mirror.scheme = "bearer"
        answer = resolve(HUB, [mirror.url + "/"], Credentials("me", "secret"))
        assert (answer.digest, answer.by) == (mirror.digest(), mirror.url + "/")
        assert {auth for _method, _path, auth in mirror.requests} == {"", "Bearer t-anonymous"}
    assert home.requests == []


def test_a_mirror_that_lacks_the_tag_or_is_down_is_passed_over_and_named(home):
    with depot() as mirror:
        mirror.manifests.clear()
        answer = resolve(HUB, [mirror.url, CLOSED])
    assert answer.digest == home.digest()
    assert [note.partition(": ")[0].split("/v2")[0] for note in answer.notes] == [
        f"mirror {mirror.url}", f"mirror {CLOSED}",
    ]  # fmt: skip


def test_mirrors_of_docker_hub_are_not_asked_for_other_registries(registry):
    registry.manifests["org/x:t"] = b"{}"
    with depot() as mirror:
        answer = resolve(parse_reference(f"{registry.host}/org/x:t"), [mirror.url])
        assert mirror.requests == []
    assert answer.digest == registry.digest("org/x:t")


def test_nobody_answering_names_everyone_asked(monkeypatch):
    monkeypatch.setattr(registries, "DOCKER_HUB_API", CLOSED)
    monkeypatch.setattr(upstream.time, "sleep", lambda _s: None)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9.*; mirror http://127\.0\.0\.1:1/"):
        resolve(HUB, ["http://127.0.0.1:1"])


def test_a_digest_names_itself_and_asks_nobody(home):
    assert resolve(parse_reference(f"{IMAGE}@{DIGEST}")).digest == DIGEST
    assert home.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again_and_then_unreachable(home, status):
    home.failures = [status, status]
    assert resolve(HUB).digest == home.digest()
    home.failures = [status] * 3
    with pytest.raises(Unreachable, match=f"HTTP {status}"):
        resolve(HUB)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(200, {"Content-Type": "text/html"}), "check that the address is a registry"),
        (Answer(200, {"Docker-Content-Digest": "md5:1"}), "a sha256 digest"),
        (Answer(418), "HTTP 418"),
    ],
)
def test_an_answer_no_registry_gives_is_told(answer, says):
    with pytest.raises(Unusable, match=says):
        resolve(HUB, ask=lambda *_a, **_k: answer)


def test_a_mirror_that_is_no_address_is_told():
    with pytest.raises(Unusable, match="an http or https address"):
        upstream.ask("GET", "depot:5000/v2/")


def test_a_body_beyond_the_limit_is_refused(registry):
    registry.raw["x"] = b"x" * 2000
    with pytest.raises(Unusable, match="at most 1000 bytes"):
        upstream.ask("GET", f"{registry.url}/raw/x", limit=1000)


def test_netrc_does_not_replace_the_token(registry, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    upstream.ask("GET", f"{registry.url}/raw/x", authorization="Bearer t")
    upstream.ask("GET", f"{registry.url}/raw/x")
    assert [auth for _method, _path, auth in registry.requests] == ["Bearer t", ""]
