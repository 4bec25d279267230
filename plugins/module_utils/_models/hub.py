# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Hugging Face Hub: what a revision consists of, and its files. Every failure says expected, seen, do next.

huggingface_hub is imported at the first call, not here: check mode runs on hosts that do not have it yet.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from .._common import json_text
from . import listing
from .manifest import Manifest, path_problems, repository_problems

TOKEN = re.compile(r"[!-~]+")
PUBLIC_ENDPOINT = "https://huggingface.co"
BLOCK = 1024 * 1024
LISTING_BYTES = 64 * 1024 * 1024
SMALL_FILE = 16 * 1024 * 1024
"""Bytes. The Hub puts a file of more than 10 MiB into its large-file storage."""
LONGEST_ANSWER = 600.0
"""Seconds for all of an answer that is read into memory."""
LONGEST_WORDS = 200
"""Characters of the Hub's own words that a message quotes."""
RETRY_AFTER_LIMIT = 310.0
"""Seconds. The Hub counts requests in windows of five minutes; a longer wait means that it does not want us today."""

NEED_ACCESS = "set a token that has access (HF_TOKEN on the controller, or spark_hub_token)"

T = TypeVar("T")


class HubError(Exception):
    """The Hub does not give what is wanted. `retryable`: the same request may succeed later."""

    def __init__(
        self, expected: str, seen: str, do: str, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(f"expected {expected}, seen {seen}; {do}")
        self.retryable, self.retry_after = retryable, retry_after


class HubLibraryMissing(ImportError):
    """huggingface_hub cannot be imported."""


@dataclass(frozen=True)
class Hub:
    """One endpoint, and how patient to be with it. The token never appears in a message."""

    endpoint: str = PUBLIC_ENDPOINT
    token: str | None = None
    retries: int = 5
    timeout: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    on_wait: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        url = urlsplit(self.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise HubError(
                "an endpoint such as https://huggingface.co", repr(self.endpoint), "correct the endpoint"
            )
        if self.token is not None and not TOKEN.fullmatch(self.token):
            # The HTTP library would quote the token in its error.
            seen = f"{len(self.token)} characters with a space, a line break or a letter outside ASCII among them"
            raise HubError("a token in one word", seen, "correct the token")
        object.__setattr__(self, "endpoint", self.endpoint.rstrip("/"))

    @property
    def public(self) -> bool:
        return self.endpoint == PUBLIC_ENDPOINT

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r})"

    # -- the library

    def load(self, home: Path | None = None) -> Any:
        """Import huggingface_hub for this endpoint.

        It reads its environment once, at its first import. What a user or a serving recipe has set there (offline
        mode, another endpoint, a token of root's) must not leak in. Xet is the Hub's own storage; a mirror has none.

        :param home: where the library may keep files of its own, instead of the user's home
        """
        for name in (
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_OIDC_RESOURCE",
        ):
            os.environ.pop(name, None)
        os.environ.update(
            HF_ENDPOINT=self.endpoint,
            HF_HUB_DISABLE_IMPLICIT_TOKEN="1",  # noqa: S106
            HF_HUB_DISABLE_PROGRESS_BARS="1",
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_DISABLE_XET="0" if self.public else "1",
            HF_XET_HIGH_PERFORMANCE="1" if self.public else "0",
        )
        if home is not None:
            os.environ["HF_HOME"] = str(home)
            for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE"):
                os.environ.pop(name, None)
        try:
            return importlib.import_module("huggingface_hub")
        except ImportError as error:
            raise HubLibraryMissing(str(error)) from error

    def call(self, what: str, function: Callable[[], T], progressed: Callable[[], bool] = lambda: False) -> T:
        """Call `function`, and call it again after errors that may pass: 408, 429 and 5xx, a lost connection, a body cut short.

        Gives up after `retries` further tries in a row that did not progress.
        """
        tries = 0
        while True:
            try:
                return function()
            except Exception as error:
                problem = self._explain(what, error)
                if problem is None:
                    raise
                tries = 0 if progressed() else tries + 1
                if not problem.retryable or tries > self.retries:
                    raise problem from error
                wait = (
                    problem.retry_after
                    if problem.retry_after is not None
                    else min(2.0 ** max(tries - 1, 0), 16.0)
                )
                self.on_wait(f"{problem}; next try in {wait:.0f} s")
                self.sleep(wait)

    def _explain(self, what: str, error: BaseException) -> HubError | None:
        """The error in words for the person who must act on it. None: the error is not the Hub's."""
        if isinstance(error, HubError):
            return error
        errors = importlib.import_module("huggingface_hub.errors")
        if isinstance(error, errors.HfHubHTTPError):
            return self._explain_status(what, error, errors)
        transport = _transport()
        if isinstance(error, transport.TransportError):
            seen = f"no whole answer from {self.endpoint} ({type(error).__name__}: {error})"
            do = "check the endpoint, the network and its proxy from this machine"
            return HubError(
                f"an answer about {what}", seen, do, not isinstance(error, transport.UnsupportedProtocol)
            )
        if isinstance(error, errors.OfflineModeIsEnabled):
            return HubError(f"an answer about {what}", str(error), "unset HF_HUB_OFFLINE")
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
            return self._explain(what, error.__cause__)
        if isinstance(error, (errors.HFValidationError, errors.FileMetadataError, json.JSONDecodeError)):
            seen = f"{type(error).__name__}: {error}"
            return HubError(f"an answer about {what}", seen, "is the endpoint a Hugging Face Hub?")
        return None

    def _explain_status(self, what: str, error: Any, errors: Any) -> HubError:
        status, after = error.response.status_code, _retry_after(error.response.headers)
        words = self._words(error.response.headers.get("X-Error-Message", ""))
        by = f"{self.endpoint} {'with the token given' if self.token else 'without a token'}"
        seen = f"HTTP {status} {f'({words}) ' if words else ''}from {by}"
        if isinstance(error, errors.DisabledRepoError):
            return HubError(f"access to {what}", seen, "take another repository: no token opens this one")
        if isinstance(error, errors.GatedRepoError):
            do = "ask for access with the account of the token" if self.token else NEED_ACCESS
            return HubError(f"access to {what}", f"{seen}: the repository is gated", do)
        if isinstance(error, errors.RepositoryNotFoundError):
            do = (
                "correct the name, or use a token that has access"
                if self.token
                else f"correct the name, or {NEED_ACCESS}"
            )
            return HubError(f"{what} to exist", f"{seen}: no such repository, or a private one", do)
        if isinstance(error, errors.RevisionNotFoundError):
            return HubError(
                f"{what} to exist", f"{seen}: no such revision", "correct the branch, tag or commit"
            )
        if isinstance(error, errors.EntryNotFoundError):
            return HubError(f"{what} to exist", f"{seen}: no such file", "lock the recipe again")
        if status in (401, 403):
            do = "renew the token or ask for access" if self.token else NEED_ACCESS
            return HubError(f"access to {what}", seen, do)
        if status == 429:
            seen += ": too many requests from this address" + (
                "" if after is None else f", retry after {after:.0f} s"
            )
            more = "" if self.token else ", set a token (its limits are higher)"
            do = f"run again later{more}, or fetch through a mirror"
            retry = after is None or after <= RETRY_AFTER_LIMIT
            return HubError(f"an answer about {what}", seen, do, retry, after)
        if status == 408 or status >= 500:
            do = "the Hub has a problem: run again later, or use another endpoint"
            return HubError(f"an answer about {what}", seen, do, True, after)
        return HubError(f"an answer about {what}", seen, "is the endpoint a Hugging Face Hub?")

    def _words(self, said: str) -> str:
        """The Hub's own words, fit for a terminal. A server may repeat the token that it got."""
        if self.token:
            said = said.replace(self.token, "…")
        plain = " ".join("".join(each if each.isprintable() else " " for each in said).split())
        return plain if len(plain) <= LONGEST_WORDS else f"{plain[:LONGEST_WORDS]}…"

    def _headers(self) -> dict[str, str]:
        utils = importlib.import_module("huggingface_hub.utils")
        # Compression would hide the size, and where to go on.
        return {**utils.build_hf_headers(token=self.token or False), "Accept-Encoding": "identity"}

    # -- what is asked

    def resolve_manifest(self, repository: str, revision: str) -> dict[str, Any]:
        """What `revision` (a branch, a tag, a commit) of `repository` consists of.

        One request for the list, and one for each file that is not in large-file storage. Of those the Hub gives only a
        git sha1, so they are fetched (they are small), compared with it, and hashed.

        :returns: ``{repository, revision, commit, files: {path: {size, sha256}}}``, paths sorted
        :raises HubError: and HubLibraryMissing
        """
        what = f"{repository} at {revision}"
        commit, files = self._list(repository, revision)
        names = [file if isinstance(file, str) else file.path for file in files]
        if problems := [problem for name in names for problem in path_problems(name)]:
            raise HubError(
                f"file names of {what} that stay inside it", "; ".join(problems), "do not use this repository"
            )
        entries = [file for file in files if isinstance(file, listing.Entry)]
        if bare := len(files) - len(entries):
            raise HubError(
                f"size and checksum of each file of {what}",
                f"{bare} of {len(files)} without them from {self.endpoint}",
                f"this is a mirror that gives no checksums: lock from {PUBLIC_ENDPOINT}",
            )
        if large := [file.path for file in entries if not file.sha256 and file.size > SMALL_FILE]:
            raise HubError(
                f"files of more than {SMALL_FILE} bytes in the large-file storage of {what}",
                f"{', '.join(large[:3])} outside it",
                f"lock from {PUBLIC_ENDPOINT}",
            )

        def entry_of(file: listing.Entry) -> tuple[str, dict[str, Any]]:
            sha256 = file.sha256 or hashlib.sha256(self._small_file(repository, commit, file)).hexdigest()
            return file.path, {"size": file.size, "sha256": sha256}

        with ThreadPoolExecutor(8) as pool:
            locked = dict(pool.map(entry_of, entries))
        return {
            "repository": repository,
            "revision": revision,
            "commit": commit,
            "files": {path: locked[path] for path in sorted(locked)},
        }

    def commit(self, repository: str, revision: str) -> str:
        """The commit that `revision` stands for.

        :raises HubError: and HubLibraryMissing
        """
        return self._list(repository, revision)[0]

    def _list(self, repository: str, revision: str) -> tuple[str, list[listing.Entry | str]]:
        if problems := list(repository_problems(repository)):
            raise HubError("a repository of the Hub", "; ".join(problems), "correct the recipe")
        self.load()
        what = f"{repository} at {revision}"
        url = f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
        body = self.call(what, lambda: self._get(what, url, LISTING_BYTES))
        try:
            return listing.parse(
                json_text.read(body, "the list of its files", limit=LISTING_BYTES, nulls=False)
            )
        except ValueError as error:
            do = "is this the right repository, and the endpoint a Hugging Face Hub?"
            raise HubError(f"the files of {what}", f"{error}", do) from None

    def _small_file(self, repository: str, commit: str, file: listing.Entry) -> bytes:
        what = f"{repository}/{file.path} at {commit}"

        def get() -> bytes:
            data = self._get(what, self._url(repository, commit, file.path), file.size)
            seen = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            if seen != file.oid:
                raise HubError(
                    f"git oid {file.oid} of {what}",
                    f"{seen} ({len(data)} bytes)",
                    "the Hub gave other bytes: try again",
                    True,
                )
            return data

        return self.call(what, get)

    def _get(self, what: str, url: str, limit: int) -> bytes:
        """The whole body of an answer, of at most `limit` bytes."""
        utils = importlib.import_module("huggingface_hub.utils")
        until = time.monotonic() + LONGEST_ANSWER
        body = bytearray()
        with utils.get_session().stream(
            "GET", url, headers=self._headers(), timeout=self.timeout, follow_redirects=True
        ) as answer:
            _raise_for_status(answer)
            for block in answer.iter_bytes(BLOCK):
                body += block
                if len(body) > limit:
                    do = "the endpoint gives other bytes than it lists: do not use it"
                    raise HubError(f"at most {limit} bytes of {what}", "more", do)
                if time.monotonic() > until:
                    seen = f"no end of it after {LONGEST_ANSWER:.0f} s"
                    raise HubError(
                        f"an answer about {what}", seen, "check the network, or use another endpoint"
                    )
        return bytes(body)

    def _url(self, repository: str, commit: str, path: str) -> str:
        library = importlib.import_module("huggingface_hub")
        url: str = library.hf_hub_url(repository, path, revision=commit, endpoint=self.endpoint)
        return url

    def download(
        self,
        repository: str,
        commit: str,
        path: str,
        size: int,
        target: Path,
        received: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Bring one file to `target` over HTTP, going on after the bytes that are already there.

        One request for each file: the manifest knows size and hash already. The library's own download starts a file
        again in each new process. The caller verifies the hash.

        :param received: called with each number of bytes that arrived; negative when some were thrown away
        """
        utils = importlib.import_module("huggingface_hub.utils")
        what = f"{repository}/{path} at {commit}"
        url = self._url(repository, commit, path)
        most = 0

        def here() -> int:
            return target.stat().st_size if target.exists() else 0

        def discard() -> None:
            received(-here())
            target.unlink(missing_ok=True)

        def progressed() -> bool:
            nonlocal most
            before, most = most, max(most, here())
            return most >= before + BLOCK

        def get() -> None:
            if here() > size:
                discard()
            have = here()
            if have == size:
                target.touch()
                return
            headers = self._headers() | ({"Range": f"bytes={have}-"} if have else {})
            with utils.get_session().stream(
                "GET", url, headers=headers, timeout=self.timeout, follow_redirects=True
            ) as answer:
                if answer.status_code == 416:
                    discard()
                    raise HubError(
                        f"{size} bytes of {what}", f"no more than {have}", "try again", retryable=True
                    )
                _raise_for_status(answer)
                if have and answer.status_code != 206:
                    discard()
                with target.open("ab") as file:
                    for block in answer.iter_bytes():
                        file.write(block)
                        received(len(block))
                        if file.tell() > size:
                            break
            if (have := here()) != size:
                seen = str(have) if have < size else f"more than {size}"
                if have > size:
                    discard()
                raise HubError(
                    f"{size} bytes of {what}", f"{seen} from {self.endpoint}", "try again", retryable=True
                )

        self.call(what, get, progressed)

    def download_with_library(
        self,
        repository: str,
        commit: str,
        path: str,
        folder: Path,
        received: Callable[[int], None] = lambda count: None,
    ) -> Path:
        """Bring one file to `folder`/`path` with hf_hub_download, which on the public Hub uses Xet.

        Whole files only: one that is interrupted starts again.
        """

        class Bar:
            """Takes the library's reports, in place of a progress bar."""

            def __init__(self, *_: Any, **__: Any) -> None:
                self.total = self.n = 0

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: Any) -> None:
                pass

            def update(self, count: float | None = 1) -> None:
                received(int(count or 0))

            def close(self) -> None:
                pass

            def _nothing(self, *_: Any, **__: Any) -> None:
                pass

            # With `update_transfer` the library counts bytes on disk and bytes on the wire in one bar, not in two.
            update_transfer = refresh = set_description_str = _nothing
            set_postfix_str = set_transfer_postfix_str = _nothing

        library = importlib.import_module("huggingface_hub")
        # Otherwise the library would keep a file that is there when the Hub does not answer.
        (folder / path).unlink(missing_ok=True)
        return Path(
            self.call(
                f"{repository}/{path} at {commit}",
                lambda: library.hf_hub_download(
                    repository,
                    path,
                    revision=commit,
                    local_dir=folder,
                    endpoint=self.endpoint,
                    token=self.token or False,
                    etag_timeout=self.timeout,
                    tqdm_class=Bar,
                ),
            )
        )


BLAME = (
    "the Hub, or something between, gives other bytes than were locked: do not use them. Check the endpoint, or lock "
    "again"
)


@dataclass(frozen=True)
class HttpFetcher:
    """One request for each file. A file goes on where it stopped."""

    hub: Hub
    resumes = True
    blame = BLAME

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        self.hub.download(
            manifest.repository, manifest.commit, path, manifest.files[path].size, target, received
        )


@dataclass(frozen=True)
class LibraryFetcher:
    """hf_hub_download, for the Hub's own storage (Xet). It is faster there, but starts an interrupted file again."""

    hub: Hub
    resumes = False
    blame = BLAME

    def fetch(self, manifest: Manifest, path: str, target: Path, received: Callable[[int], None]) -> None:
        folder = target.with_name(f"{target.name}.d")
        got = self.hub.download_with_library(manifest.repository, manifest.commit, path, folder, received)
        got.replace(target)
        shutil.rmtree(folder)


def fetcher_for(hub: Hub, transport: str, home: Path) -> HttpFetcher | LibraryFetcher:
    """:param transport: ``auto`` (Xet on the public Hub when it is installed, else HTTP) or ``http``

    :param home: where the library may keep files of its own
    :raises HubLibraryMissing:
    """
    hub.load(home)
    xet = transport == "auto" and hub.public and importlib.util.find_spec("hf_xet") is not None
    return LibraryFetcher(hub) if xet else HttpFetcher(hub)


def resolve_manifest(
    repository: str, revision: str, endpoint: str = PUBLIC_ENDPOINT, token: str | None = None
) -> dict[str, Any]:
    """``Hub(endpoint, token).resolve_manifest(repository, revision)``."""
    return Hub(endpoint, token or None).resolve_manifest(repository, revision)


def _transport() -> Any:
    """The HTTP library under huggingface_hub, which does not catch its errors."""
    try:
        return importlib.import_module("httpx2")
    except ImportError:
        return importlib.import_module("httpx")


def _raise_for_status(answer: Any) -> None:
    """Raise as the library does, but do not read the body of a failure, which may be endless: the headers say all that is used here."""
    if answer.status_code >= 400:
        of_body = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in answer.headers.items() if name not in of_body]
        answer = _transport().Response(answer.status_code, headers=headers, request=answer.request)
        importlib.import_module("huggingface_hub.utils").hf_raise_for_status(answer)


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from Retry-After or the Hub's own RateLimit header."""
    value = str(headers.get("Retry-After", "")).strip()
    if value.isdigit():
        return float(value)
    parse = importlib.import_module("huggingface_hub.utils").parse_ratelimit_headers
    limit = parse(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None
