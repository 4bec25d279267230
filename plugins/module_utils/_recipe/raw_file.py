# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file of a repository at a commit."""

from __future__ import annotations

from urllib.parse import quote

from .._common.upstream import Ask, NotFound, Unauthorized, Unusable, ask


def url(home: str, repository: str, commit: str, path: str) -> str:
    return f"{home.rstrip('/')}/{repository}/{commit}/{quote(path)}"


def fetch(home: str, repository: str, commit: str, path: str, ask: Ask = ask) -> bytes:
    """The file's bytes.

    :raises UpstreamError: NotFound, Unauthorized, Unreachable; Unusable for an empty file or a web page
    """
    address = url(home, repository, commit, path)
    answer = ask("GET", address)
    if answer.status == 404:
        raise NotFound(
            f"{address}: expected {path} of {repository}, seen HTTP 404: no such repository, commit or path"
        )
    if answer.status in (401, 403):
        raise Unauthorized(f"{address}: expected a public file, seen HTTP {answer.status}")
    if answer.status != 200:
        raise Unusable(f"{address}: expected the file, seen HTTP {answer.status}")
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not path.endswith((".html", ".htm")):
        raise Unusable(
            f"{address}: expected {path}, seen a web page; a proxy or a log-in page may be in between"
        )
    if not answer.body:
        raise Unusable(f"{address}: expected {path}, seen an empty file")
    return answer.body
