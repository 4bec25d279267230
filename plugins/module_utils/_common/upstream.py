# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bounded HTTP question to an upstream, and the ways in which it can fail to answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import bounded

try:
    import requests
except ImportError:  # the module says so, with missing_required_lib
    HAS_REQUESTS = False
else:
    HAS_REQUESTS = True

ATTEMPTS = 3
LONGEST_WAIT = 10.0  # s; if a server asks for more, the user is told instead
LONGEST_ANSWER = 120.0  # s
LIMIT = 8 * 1024 * 1024  # bytes of an answer; patches, manifests and tokens are far smaller


class UpstreamError(Exception):
    """An upstream did not give what was asked. The text says expected, seen and what to do."""


class Unreachable(UpstreamError):
    """No answer, or one that says "not now" (429, 5xx): nothing is known about what was asked."""


class Unauthorized(UpstreamError):
    """401 or 403: it may be there, but not for this caller."""


class NotFound(UpstreamError):
    """It is not there."""


class Unusable(UpstreamError):
    """An answer that is not what this kind of server gives."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Ask = Callable[..., Answer]


def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    authorization: str | None = None,
    limit: int = LIMIT,
    attempts: int = ATTEMPTS,
    seconds: float = LONGEST_ANSWER,
) -> Answer:
    """The answer to one request, whatever its status; 429 and 5xx are asked again first.

    :param authorization: value of the header of that name; never replaced by a netrc entry
    :param limit: bytes of the body that are read at most
    :param attempts: how often to try an address that does not answer
    :param seconds: for all of one answer
    :raises Unreachable: no connection, a broken one, or 429 or 5xx at every attempt
    :raises Unusable: a body longer than ``limit``, an invalid URL
    """

    def authorize(request: Any) -> Any:
        if authorization:
            request.headers["Authorization"] = authorization
        return request

    said = ""
    for attempt in range(1, attempts + 1):
        wait = 0.5 * attempt
        try:
            with (
                bounded.Session(seconds) as session,
                session.request(
                    method,
                    url,
                    headers=dict(headers or {}),
                    params=params,
                    auth=authorize,
                    timeout=(5, 30),
                ) as response,
            ):
                if response.status_code != 429 and response.status_code < 500:
                    body = session.read(response, limit)
                    return Answer(response.status_code, response.headers, body)
                said = f"HTTP {response.status_code}"
                wait = _retry_after(response.headers.get("Retry-After"), wait)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                requests.exceptions.MissingSchema) as error:  # fmt: skip
            raise Unusable(f"{url}: expected an http or https address ({error})") from error
        except bounded.TooLongError as error:
            raise Unusable(f"{url}: {error}; check the address") from error
        except requests.exceptions.RequestException as error:
            said = reason(error)
        if wait > LONGEST_WAIT:
            said += f", asks to wait {wait:.0f} s"
            break
        if attempt < attempts:
            time.sleep(wait)
    raise Unreachable(f"{url}: expected an answer, seen {said}; check the network, the proxy and the address")


def _retry_after(value: str | None, otherwise: float) -> float:
    """Seconds of a Retry-After header; a date is not worth parsing here."""
    return float(value) if value and value.isdecimal() else otherwise


def reason(error: Exception) -> str:
    """The innermost reason of a failed request, in one line without the pool's own words."""
    inner: BaseException = error
    while True:
        context = None if inner.__suppress_context__ else inner.__context__
        following = getattr(inner, "reason", None) or inner.__cause__ or context
        if not isinstance(following, BaseException) or following is inner:
            break
        inner = following
    return f"{type(inner).__name__}: {inner}"
