# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway answers by itself, in the words of the OpenAI API, so that a client of it raises what it raises there. Pure data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

BUSY = 5
"""Seconds after which to ask again: about what a health check takes to find a server that is back."""
SOON = 1
"""Seconds after which a key may have a free place again."""


@dataclass(frozen=True)
class Answer:
    """One error. `message` may hold expressions of HAProxy's log format, whose values it escapes for JSON."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: int = 0

    @property
    def body(self) -> str:
        """As a word of HAProxy's configuration: in single quotes, which nothing inside can end."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return "'" + json.dumps({"error": error}).replace("'", r"'\''") + "'"


_JSON = "We could not parse the JSON body of your request. The API expects a JSON object with a model."
_PATH = "%[method,json(utf8s)] %[path,json(utf8s)]"
_MODEL = "%[var(txn.model),json(utf8s)]"

ANSWERS: dict[str, Answer] = {
    "no_key": Answer(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
    ),
    "wrong_key": Answer(401, "Incorrect API key provided.", code="invalid_api_key"),
    "unknown_path": Answer(404, f"Invalid URL ({_PATH})"),
    "too_large": Answer(
        413, "The request body is larger than this gateway accepts.", code="request_too_large"
    ),
    "too_many": Answer(
        429,
        "Rate limit reached: this key has too many requests at once. Please try again later.",
        type="requests",
        code="rate_limit_exceeded",
        retry_after=SOON,
    ),
    "too_fast": Answer(
        429,
        "Rate limit reached: this key has sent too many requests per minute. Please try again later.",
        type="requests",
        code="rate_limit_exceeded",
        retry_after=BUSY,
    ),
    "no_json": Answer(400, _JSON),
    "no_model": Answer(400, "you must provide a model parameter"),
    "unknown_model": Answer(
        404, f"The model `{_MODEL}` does not exist or you do not have access to it.", code="model_not_found"
    ),
}
"""By the rule that gives it."""

FAILURES: dict[str, Answer] = {
    "bad_request": Answer(400, "The request is not valid HTTP."),
    "slow_request": Answer(408, "The request did not arrive in time.", type="timeout"),
    "fault": Answer(500, "The gateway failed to answer.", type="server_error"),
    "broken_answer": Answer(
        502, "The server that had this request ended before it answered.", type="server_error"
    ),
    "no_server": Answer(
        503,
        "No server of this model is ready. Please try again later.",
        type="service_unavailable_error",
        retry_after=BUSY,
    ),
    "slow_answer": Answer(
        504, "The server that had this request did not answer in time.", type="server_error"
    ),
}
"""Those that HAProxy gives where no rule does."""


def as_data(answers: dict[str, Answer]) -> dict[str, dict[str, object]]:
    """For a template."""
    return {rule: asdict(answer) | {"body": answer.body} for rule, answer in answers.items()}
