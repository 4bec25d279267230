# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations of several turns, each of which sends all that was said before: what a prefix cache is for."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streams import JSON, Address

TURNS = 5
WORDS = 150
"""Of each message of the user: more than one block of the cache, which has 128 tokens on a CPU."""
ANSWER = 16
"""Tokens of each answer."""
PAUSE = 0.4
"""Seconds at most that a user takes before the next turn."""
NUMBERS = 200
"""The lab's model knows numbers alone: any other word is the same token to it, and conversations of such words one conversation."""


@dataclass
class Asked:
    """What some clients have seen."""

    first_tokens: list[float] = field(default_factory=list)
    """Seconds from a request to the first text of its answer."""
    faults: list[str] = field(default_factory=list)


def hold(address: Address, clients: int, each: int, seed: str) -> Asked:
    """Have that many clients hold so many conversations each, one after the other. No two conversations have a beginning in common."""
    asked = Asked()
    threads = [
        threading.Thread(target=_client, args=(address, each, f"{seed} {number}", asked), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return asked


def _client(address: Address, each: int, seed: str, asked: Asked) -> None:
    choice = random.Random(seed)
    for _ in range(each):
        said: list[dict[str, str]] = []
        for _ in range(TURNS):
            said.append({"role": "user", "content": _words(choice)})
            try:
                seconds, answer = _turn(address, said)
            except (OSError, ValueError) as error:
                asked.faults.append(f"{type(error).__name__}: {error}")
                break
            asked.first_tokens.append(seconds)
            said.append({"role": "assistant", "content": answer})
            time.sleep(choice.uniform(0, PAUSE))


def _words(choice: random.Random) -> str:
    return " ".join(str(choice.randint(1, NUMBERS)) for _ in range(WORDS))


def _turn(address: Address, said: Sequence[dict[str, str]]) -> tuple[float, str]:
    """(seconds to the first text, all of the text)

    :raises ValueError: it was refused, or had no text
    """
    body = {"model": address.model, "messages": said, "max_tokens": ANSWER, "stream": True}
    connection = address.connect()
    try:
        # Its handshake is no part of the time.
        connection.connect()
        began = time.perf_counter()
        headers = JSON | {"Authorization": f"Bearer {address.key}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}: {answer.read()[:200]!r}")
        first, text = 0.0, ""
        for line in answer:
            if part := _text(line):
                first = first or time.perf_counter() - began
                text += part
    finally:
        connection.close()
    if not text:
        raise ValueError("an answer without text")
    return first, text


def _text(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices: list[dict[str, Any]] = json.loads(line[6:]).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")
