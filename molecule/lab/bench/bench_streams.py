#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway itself costs. Runs on hosts of the lab, with the distribution's Python and nothing else.

serve PORT                             a stub of vLLM, which takes next to no time
requests DIRECT GATEWAY KEY MODEL N    N requests to each in turn; prints {"direct": [seconds], "gateway": [seconds]}
streams GATEWAY KEY MODEL N SECONDS    N streams at once; prints how many were held, came to their end, and what they cost
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
PACE = 0.5
"""Seconds between two tokens of one stream: slow, so that clients and stub leave the gateway a core."""
OPENING = 30.0
"""Seconds at most until all streams have begun."""
EVENT = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}],
    }
)
TICKS = os.sysconf("SC_CLK_TCK")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").lower().split("\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
            asked = json.loads(await reader.readexactly(length) or b"{}")
            if asked.get("stream"):
                await stream(writer, int(asked["max_tokens"]))
            else:
                text = json.dumps({"object": "chat.completion", "choices": []}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                    % (len(text), text)
                )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def stream(writer: asyncio.StreamWriter, tokens: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    event = chunk(b"data: " + EVENT.encode() + b"\n\n")
    for _ in range(tokens):
        writer.write(event)
        await writer.drain()
        await asyncio.sleep(PACE)
    writer.write(chunk(b"data: [DONE]\n\n") + chunk(b""))


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=2048)
    async with server:
        await server.serve_forever()


def trusting() -> ssl.SSLContext:
    """The gateway of a lab, on the same host."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def requests(direct: str, gateway: str, key: str, model: str, count: int) -> dict[str, list[float]]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "word " * 400}]})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    there, through = urlsplit(direct), urlsplit(gateway)
    ways = {
        "direct": http.client.HTTPConnection(str(there.hostname), there.port, timeout=30),
        "gateway": http.client.HTTPSConnection(
            str(through.hostname), through.port, timeout=30, context=trusting()
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(count + 50):
        for way, connection in ways.items():
            began = time.perf_counter()
            connection.request("POST", CHAT, body, headers)
            answered = connection.getresponse()
            answered.read()
            if answered.status != 200:
                raise SystemExit(f"{way}: expected 200, seen {answered.status}")
            if number >= 50:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def processor() -> float:
    """Seconds of all processes of the gateway so far, in user space and in the kernel."""
    found = subprocess.run(["pgrep", "-x", "haproxy"], capture_output=True, text=True, check=True).stdout
    ticks = 0
    for pid in found.split():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


@dataclass
class Tally:
    begun: int = 0
    events: int = 0
    ended: int = 0
    """Streams that came to their end, whole."""


async def client(url: str, head: bytes, tokens: int, opening: asyncio.Semaphore, tally: Tally) -> None:
    at = urlsplit(url)
    async with opening:
        reader, writer = await asyncio.open_connection(at.hostname, at.port or 443, ssl=trusting())
        writer.write(head)
    mine = 0
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            tally.begun += not mine
            mine += 1
            tally.events += 1
        elif line.startswith(b"data: [DONE]"):
            tally.ended += mine == tokens
            break
    writer.close()


async def streams(gateway: str, key: str, model: str, count: int, seconds: float) -> dict[str, float]:
    """Hold so many streams for that long, from when the last one has begun."""
    tokens = int((seconds + OPENING) / PACE)
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": tokens,
        "stream": True,
    }
    body = json.dumps(asked)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    tally, opening = Tally(), asyncio.Semaphore(40)
    clients = [
        asyncio.create_task(client(gateway, head.encode(), tokens, opening, tally)) for _ in range(count)
    ]
    deadline = time.monotonic() + OPENING
    while tally.begun < count and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    held, events, used, began = tally.begun - tally.ended, tally.events, processor(), time.monotonic()
    await asyncio.sleep(seconds)
    window = {
        "held": held,
        "events": tally.events - events,
        "processor": processor() - used,
        "seconds": time.monotonic() - began,
    }
    await asyncio.gather(*clients, return_exceptions=True)
    return window | {"ended": tally.ended}


def main() -> None:
    what, *given = sys.argv[1:]
    if what == "serve":
        asyncio.run(serve(int(given[0])))
    elif what == "requests":
        direct, gateway, key, model, count = given
        print(json.dumps(requests(direct, gateway, key, model, int(count))))
    else:
        gateway, key, model, count, seconds = given
        print(json.dumps(asyncio.run(streams(gateway, key, model, int(count), float(seconds)))))


if __name__ == "__main__":
    main()
