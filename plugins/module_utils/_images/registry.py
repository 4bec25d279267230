# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image tag points at, asked from the registry without pulling.

The distribution API, version 2: ``HEAD /v2/<repository>/manifests/<tag>`` answers with the digest in
``Docker-Content-Digest``; a 401 says where to get a token. A HEAD does not count as a pull on
Docker Hub.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .._common import json_text
from .._common.upstream import Answer, Ask, NotFound, Unauthorized, Unusable, UpstreamError, ask
from .oci import DIGEST
from .reference import DOCKER_HUB, Reference

DOCKER_HUB_API = "https://registry-1.docker.io"
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True)
class Resolution:
    """A digest, the address that gave it, and what went wrong before."""

    digest: str
    by: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Credentials:
    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def endpoint(registry: str) -> str:
    """Address of a registry's API. A registry on this machine's loopback is asked without TLS, as Docker does."""
    if registry == DOCKER_HUB:
        return DOCKER_HUB_API
    host = registry.partition(":")[0]
    scheme = "http" if host == "localhost" or host.startswith("127.") else "https"
    return f"{scheme}://{registry}"


_WORD = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=]+)))?""")


def challenges(header: str) -> dict[str, dict[str, str]]:
    """{scheme in lower case: parameters} of WWW-Authenticate, several of which arrive as one header (RFC 9110, 11.6.1).

    A word without a value begins the next challenge. The first challenge of a scheme counts.
    """
    found: dict[str, dict[str, str]] = {}
    given: dict[str, str] = {}
    for word in _WORD.finditer(header):
        name, quoted, plain = word[1].lower(), word[2], word[3]
        if quoted is None and plain is None:
            given = {}
            found.setdefault(name, given)
        else:
            given[name] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return found


def resolve(
    reference: Reference,
    mirrors: Iterable[str] = (),
    credentials: Credentials | None = None,
    ask: Ask = ask,
) -> Resolution:
    """The digest of a tag: from the first mirror of Docker Hub that knows it, else from its own registry.

    A reference with a digest names its content, so nobody is asked. Credentials go to the reference's own
    registry and its token service, never to a mirror.

    :raises UpstreamError: NotFound, Unauthorized, Unreachable or Unusable, naming each address asked
    """
    if reference.digest:
        return Resolution(reference.digest, "the reference itself")
    notes: list[str] = []
    for mirror in mirrors if reference.registry == DOCKER_HUB else ():
        try:
            return Resolution(tag_digest(mirror.rstrip("/"), reference, None, ask), mirror, tuple(notes))
        except UpstreamError as error:
            notes.append(f"mirror {error}")
    home = endpoint(reference.registry)
    try:
        return Resolution(tag_digest(home, reference, credentials, ask), home, tuple(notes))
    except UpstreamError as error:
        if not notes:
            raise
        raise type(error)("; ".join([str(error), *notes])) from error


def tag_digest(home: str, reference: Reference, credentials: Credentials | None, ask: Ask = ask) -> str:
    """The digest that the tag stands for in the registry at `home`.

    :raises UpstreamError: as `resolve`
    """
    url = f"{home}/v2/{reference.repository}/manifests/{reference.tag}"
    wanted = f"{reference.name}:{reference.tag}"
    headers = {"Accept": ACCEPT}
    authorization = None
    answer = ask("HEAD", url, headers=headers)
    if answer.status == 401:
        authorization = authorize(answer, home, reference.repository, credentials, ask)
        answer = ask("HEAD", url, headers=headers, authorization=authorization)
    _refuse(answer, url, wanted, credentials)
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not digest:
        # A proxy may drop the header: the digest is the sha256 of the manifest's bytes.
        answer = ask("GET", url, headers=headers, authorization=authorization)
        _refuse(answer, url, wanted, credentials)
        if "manifest" not in answer.headers.get("Content-Type", "") and "index" not in answer.headers.get(
            "Content-Type", ""
        ):
            raise Unusable(
                f"{url}: expected an image manifest, seen {answer.headers.get('Content-Type') or 'no type'};"
                " check that the address is a registry"
            )
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
    if not DIGEST.fullmatch(digest):
        raise Unusable(f"{url}: expected a sha256 digest, seen '{digest[:100]}'")
    return digest


def _refuse(answer: Answer, url: str, wanted: str, credentials: Credentials | None) -> None:
    if answer.status == 200:
        return
    if answer.status == 404:
        raise NotFound(f"{url}: expected the tag of {wanted}, seen HTTP 404: unknown tag or repository")
    if answer.status in (401, 403):
        with_what = "with the given credentials" if credentials else "without credentials"
        raise Unauthorized(
            f"{url}: expected to read {wanted}, seen HTTP {answer.status} {with_what}: an unknown or private"
            " repository; check the name, or set the registry's user name and password"
        )
    raise Unusable(f"{url}: expected a manifest, seen HTTP {answer.status}; check that it is a registry")


def authorize(
    answer: Answer, home: str, repository: str, credentials: Credentials | None, ask: Ask
) -> str | None:
    """The Authorization header to send after a 401 of `home`; None when the answer names no way, or none for us.

    :raises UpstreamError: the service gives no token, or the password would go where it must not
    """
    offered = challenges(answer.headers.get("WWW-Authenticate", ""))
    given = offered.get("bearer", {})
    realm = given.get("realm")
    if not realm:
        return credentials.basic if credentials and "basic" in offered else None
    try:
        at = urlsplit(realm)
        elsewhere = at.scheme != "https" and at.hostname != urlsplit(home).hostname
    except ValueError as error:
        raise Unusable(f"{home}: expected the address of its token service, seen {realm!r:.100}") from error
    if credentials and elsewhere:
        raise Unauthorized(f"{home}: sends its password to {realm}, without TLS and elsewhere; refused")
    token = ask(
        "GET",
        realm,
        params=({"service": given["service"]} if given.get("service") else {})
        # Some registries name no scope, and a token without one is good for nothing.
        | {"scope": given.get("scope") or f"repository:{repository}:pull"},
        authorization=credentials.basic if credentials else None,
    )
    if token.status in (401, 403):
        raise Unauthorized(
            f"{realm}: expected a token for {repository}, seen HTTP {token.status};"
            f" {'check' if credentials else 'set'} the registry's user name and password"
        )
    try:
        held = json_text.read(token.body, "the answer", nulls=False)
        value = held.get("token") or held["access_token"]
    except (ValueError, KeyError, AttributeError) as error:
        raise Unusable(f"{realm}: expected a token, seen HTTP {token.status} without one") from error
    return f"Bearer {value}"
