#!/usr/bin/env python3
# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stub of vLLM for tests of orchestration: no model, no tensor, no speed. Every figure it gives is made up.

It takes vLLM's command line, prints lines like vLLM's, and answers /health, /v1/models, /v1/chat/completions and
/metrics with vLLM's names. What must be shown of speculation itself is shown with real vLLM (molecule/lab/vllm).

Environment, each optional:
  STUB_ACCEPTANCE   share of drafts accepted at each position where those before it were (0.69), exact over a few hundred
                    drafts; several with commas are those of position 0, 1 and so on, and the last one goes on. While there is
                    a file /tmp/never, nothing is accepted: a draft that stopped agreeing while it served
                    While there is a file /tmp/wedged, no request gets a token and everything else answers, as with an engine that
                    hangs: of what comes then it never hears, so it counts none of it. It ends with the process
                    While there is a file /tmp/slow, each request first waits for 3 seconds, as in a queue
  STUB_READY_AFTER  seconds from start to the first answer (1)
  STUB_STUCK        anything: prints its first lines, then never gets ready and says no more
  STUB_DIE          start: dies while starting; request: is healthy and dies at the first completion; a path: dies while
                    starting when there is such a file
  STUB_DIE_DEPTH    dies while starting when it is to draft that many tokens a step
  STUB_NO_SPEC      anything: takes --speculative-config and ignores it
  STUB_NO_DRAFTS    anything: publishes the series and never drafts
  STUB_NO_STATS     anything: publishes no vLLM series at all
  STUB_CACHE_DTYPE  type of the KV cache that it says it has, when not the one it was given
  STUB_METHOD       speculative method that it says it resolved, when not the one it was given
  STUB_ENGINES      engines that share the work (1)
  STUB_RESET        resets its counters after this many completions, without a restart
  STUB_FOREIGN      tokens that somebody else generates for each completion of ours (0)
  STUB_EMPTY        anything: completions hold no text
  STUB_STEP         seconds an engine step takes (0.001)
  STUB_DRAFT_STEP   seconds that each drafted token adds to a step (0)
  STUB_NO_TIMES     anything: publishes no histogram of its decode times
  STUB_HELD_BACK    anything: streams come whole, as through a proxy that buffers
  VLLM_API_KEY      guards /v1, as with vLLM
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.32.0"
NEVER = Path("/tmp/never")
WEDGED = Path("/tmp/wedged")
SLOW, QUEUED = Path("/tmp/slow"), 3.0
FIRST = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the buckets of the time to the first token, in seconds; some of vLLM's."""
METHODS = ("mtp", "draft_model", "eagle", "eagle3", "ngram", "medusa", "suffix")
WORDS = ("the", "draft", "was", "accepted", "and", "the", "body", "went", "on")
DEATH = (
    "Traceback (most recent call last):",
    '  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1011, in run_engine_core',
    "    engine_core.run_busy_loop()",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x4096 and 5632x1024)",
)


@dataclass
class Settings:
    """What the stub plays."""

    model: str = "/models/body"
    name: str = "stub"
    speculation: Mapping[str, Any] | None = None
    acceptance: float | Sequence[float] = 0.69
    ready_after: float = 1.0
    stuck: bool = False
    die: str = ""
    die_depth: int = 0
    no_spec: bool = False
    no_drafts: bool = False
    no_stats: bool = False
    method: str = ""
    cache: Mapping[str, str] = field(default_factory=dict)
    """What vLLM publishes of its cache, as labels."""
    engines: int = 1
    reset: int = 0
    foreign: int = 0
    empty: bool = False
    step: float = 0.001
    draft_step: float = 0.0
    no_times: bool = False
    held_back: bool = False
    kv_usage: float = 0.25
    """Share of the KV cache that is in use while there is a request."""
    api_key: str = ""

    @classmethod
    def read(cls, environment: Mapping[str, str], **given: Any) -> Settings:
        def get(name: str) -> str:
            return environment.get(f"STUB_{name}", "")

        return cls(
            acceptance=[float(share) for share in (get("ACCEPTANCE") or "0.69").split(",")],
            ready_after=float(get("READY_AFTER") or 1),
            stuck=bool(get("STUCK")),
            die=get("DIE"),
            die_depth=int(get("DIE_DEPTH") or 0),
            no_spec=bool(get("NO_SPEC")),
            no_drafts=bool(get("NO_DRAFTS")),
            no_stats=bool(get("NO_STATS")),
            method=get("METHOD"),
            engines=int(get("ENGINES") or 1),
            reset=int(get("RESET") or 0),
            foreign=int(get("FOREIGN") or 0),
            empty=bool(get("EMPTY")),
            step=float(get("STEP") or 0.001),
            draft_step=float(get("DRAFT_STEP") or 0),
            no_times=bool(get("NO_TIMES")),
            held_back=bool(get("HELD_BACK")),
            **({"api_key": environment.get("VLLM_API_KEY", "")} | given),
        )

    def accepts(self, position: int) -> float:
        """Share of drafts accepted at a position, of those that were accepted up to there."""
        if NEVER.exists():
            return 0.0
        if isinstance(self.acceptance, float):
            return self.acceptance
        return self.acceptance[min(position, len(self.acceptance) - 1)]

    @property
    def seconds(self) -> float:
        """What one engine step takes, its drafts included."""
        return self.step + self.draft_step * self.width

    @property
    def width(self) -> int:
        """Draft positions; 0 without speculation."""
        if self.speculation is None or self.no_spec:
            return 0
        return int(self.speculation.get("num_speculative_tokens", 1))


@dataclass
class Engine:
    """One engine's counters."""

    drafts: int = 0
    draft_tokens: int = 0
    accepted: int = 0
    per_position: list[int] = field(default_factory=list)
    generated: int = 0
    finished: int = 0
    decoded: list[float] = field(default_factory=list)
    """Of each finished request of ours: seconds from its first token to its last."""
    first: list[float] = field(default_factory=list)
    """Of each request that got a token: seconds until then."""


class Stub:
    """The server's state. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.died = threading.Event()
        self._lock = threading.Lock()
        self._completions = 0
        self._active = self._waiting = 0
        self._credit = [0.0] * settings.width
        self._restart()

    def _restart(self) -> None:
        self._started = time.time()
        self._engines = [Engine(per_position=[0] * self.settings.width) for _ in range(self.settings.engines)]

    def _accepted(self) -> int:
        """Length of the accepted prefix of one draft. Shares are paid out exactly, not by chance."""
        for position in range(self.settings.width):
            self._credit[position] += self.settings.accepts(position)
            if self._credit[position] < 1 - 1e-9:
                return position
            self._credit[position] -= 1
        return self.settings.width

    def generate(self, tokens: int) -> Iterator[list[str]]:
        """Words of one answer, an engine step at a time."""
        self._wedged()
        with self._lock:
            engine = self._engines[self._completions % len(self._engines)]
            self._completions += 1
            self._active += 1
        first = last = 0.0
        began = time.monotonic()
        try:
            self._queue(began)
            for step in self._steps(engine, tokens):
                last = time.monotonic()
                if not first:
                    first = last
                    with self._lock:
                        engine.first.append(first - began)
                yield step
        finally:
            with self._lock:
                self._active -= 1
        with self._lock:
            engine.finished += 1
            engine.decoded.append(last - first)
            if self.settings.foreign:
                engine.generated += self.settings.foreign
                engine.finished += 1
            if self.settings.reset and self._completions == self.settings.reset:
                self._restart()

    def _wedged(self) -> None:
        while WEDGED.exists():
            time.sleep(0.05)

    def _queue(self, began: float) -> None:
        with self._lock:
            self._waiting += 1
        while SLOW.exists() and time.monotonic() < began + QUEUED:
            time.sleep(0.05)
        with self._lock:
            self._waiting -= 1

    def _steps(self, engine: Engine, tokens: int) -> Iterator[list[str]]:
        made = 0
        while made < tokens:
            time.sleep(self.settings.seconds)
            self._wedged()
            with self._lock:
                size = 1
                if made and self.settings.width and not self.settings.no_drafts:
                    accepted = self._accepted()
                    engine.drafts += 1
                    engine.draft_tokens += self.settings.width
                    engine.accepted += accepted
                    for position in range(accepted):
                        engine.per_position[position] += 1
                    size += accepted
                size = min(size, tokens - made)
                engine.generated += size
            yield ["" if self.settings.empty else WORDS[(made + i) % len(WORDS)] + " " for i in range(size)]
            made += size

    def metrics(self) -> str:
        """The text format as the Prometheus client writes it: labels sorted, a `_created` gauge a counter."""
        lines = [
            "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started:.2f}",
        ]
        if self.settings.no_stats:
            return "\n".join(lines) + "\n"
        with self._lock:
            times = [list(engine.decoded) for engine in self._engines]
            firsts = [list(engine.first) for engine in self._engines]
            series: dict[str, list[tuple[str, int]]] = {
                name: [
                    (f'engine="{index}"', getattr(engine, key)) for index, engine in enumerate(self._engines)
                ]
                for name, key in (("generation_tokens", "generated"), ("request_success", "finished"))
            }
            if self.settings.width:
                for key in ("drafts", "draft_tokens", "accepted"):
                    name = f"spec_decode_num_{'accepted_tokens' if key == 'accepted' else key}"
                    series[name] = [
                        (f'engine="{index}"', getattr(engine, key))
                        for index, engine in enumerate(self._engines)
                    ]
                series["spec_decode_num_accepted_tokens_per_pos"] = [
                    (f'engine="{index}",position="{position}"', count)
                    for index, engine in enumerate(self._engines)
                    for position, count in enumerate(engine.per_position)
                ]
        if self.settings.cache:
            shown = ",".join(f'{name}="{value}"' for name, value in sorted(self.settings.cache.items()))
            lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{shown}}} 1.0"]
        if not self.settings.no_times:
            lines += ["# TYPE vllm:request_decode_time_seconds histogram"]
            for index, decoded in enumerate(times):
                labels = f'engine="{index}",model_name="{self.settings.name}"'
                lines += [
                    f'vllm:request_decode_time_seconds_bucket{{{labels},le="+Inf"}} {float(len(decoded))}',
                    f"vllm:request_decode_time_seconds_count{{{labels}}} {float(len(decoded))}",
                    f"vllm:request_decode_time_seconds_sum{{{labels}}} {sum(decoded)}",
                ]
        lines += ["# TYPE vllm:time_to_first_token_seconds histogram"]
        for index, first in enumerate(firsts):
            labels = f'engine="{index}",model_name="{self.settings.name}"'
            name = "vllm:time_to_first_token_seconds"
            counts = [(str(end), sum(each <= end for each in first)) for end in FIRST]
            lines += [
                f'{name}_bucket{{{labels},le="{end}"}} {float(count)}'
                for end, count in [*counts, ("+Inf", len(first))]
            ]
            lines += [f"{name}_count{{{labels}}} {float(len(first))}", f"{name}_sum{{{labels}}} {sum(first)}"]
        usage = self.settings.kv_usage if self._active else 0.0
        for name, value in (
            ("num_requests_running", float(self._active - self._waiting)),
            ("num_requests_waiting", float(self._waiting)),
            ("kv_cache_usage_perc", usage),
        ):
            lines += [f"# TYPE vllm:{name} gauge"]
            lines += [f'vllm:{name}{{engine="0",model_name="{self.settings.name}"}} {value}']
        for name, values in series.items():
            for suffix, kind in (("_total", "counter"), ("_created", "gauge")):
                lines.append(f"# HELP vllm:{name}{suffix} Of the stub.")
                lines.append(f"# TYPE vllm:{name}{suffix} {kind}")
                for labels, value in values:
                    head, _, position = labels.partition(",")
                    named = f'{head},model_name="{self.settings.name}"' + (f",{position}" if position else "")
                    number = float(value) if suffix == "_total" else self._started
                    lines.append(f"vllm:{name}{suffix}{{{named}}} {number}")
        return "\n".join([*lines, *self._shown_alone()]) + "\n"

    def _shown_alone(self) -> list[str]:
        """What dashboards show and nothing is decided by. Every prompt has ten tokens, and half of them are in the prefix cache."""
        finished = sum(engine.finished for engine in self._engines)
        labels = f'engine="0",model_name="{self.settings.name}"'
        counters = {
            "prompt_tokens": 10 * finished,
            "prefix_cache_queries": 10 * finished,
            "prefix_cache_hits": 5 * finished,
            "num_preemptions": 0,
        }
        lines = []
        for name, value in counters.items():
            lines += [f"# TYPE vllm:{name}_total counter", f"vllm:{name}_total{{{labels}}} {float(value)}"]
        # Without a sum: that would be a witness of the decode rate.
        made = sum(engine.generated for engine in self._engines)
        lines += ["# TYPE vllm:inter_token_latency_seconds histogram"]
        lines += [
            f'vllm:inter_token_latency_seconds_bucket{{{labels},le="{end}"}} {float(made)}'
            for end in ("0.1", "+Inf")
        ]
        return lines


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer

    def do_GET(self) -> None:
        stub = self.server.stub
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/metrics":
            self._send(200, stub.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif self.path == "/version":
            self._json(200, {"version": VERSION})
        elif self.path == "/v1/models":
            if self._allowed():
                model = {"id": stub.settings.name, "object": "model", "root": stub.settings.model}
                self._json(200, {"object": "list", "data": [model]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._json(404, {"detail": "Not Found"})
        elif self._allowed():
            self._complete(json.loads(body))

    def _allowed(self) -> bool:
        key = self.server.stub.settings.api_key
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _complete(self, request: dict[str, Any]) -> None:
        stub = self.server.stub
        if request.get("model") != stub.settings.name:
            message = f"The model `{request.get('model')}` does not exist."
            self._json(404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})
            return
        if stub.settings.die == "request":
            message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
            self._json(500, {"error": {"message": message, "type": "InternalServerError", "code": 500}})
            stub.died.set()
            return
        tokens = int(request.get("max_tokens") or 16)
        usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
        if not request.get("stream"):
            text = "".join(word for step in stub.generate(tokens) for word in step)
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "length",
            }
            self._json(200, {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        steps: Iterable[list[str]] = stub.generate(tokens)
        for index, step in enumerate(list(steps) if stub.settings.held_back else steps):
            if not index:
                self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            self._event({"choices": [{"index": 0, "delta": {"content": "".join(step)}}]})
        if (request.get("stream_options") or {}).get("include_usage"):
            self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, data: Any) -> None:
        self._send(status, json.dumps(data).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.verbose:
            print(
                f'INFO:     {self.client_address[0]}:{self.client_address[1]} - "{self.requestline}" {args[1]} OK'
            )


class StubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], stub: Stub, verbose: bool = False) -> None:
        self.stub = stub
        self.verbose = verbose
        super().__init__(address, Handler)


def say(text: str, process: str = "APIServer", level: str = "INFO") -> None:
    print(
        f"({process} pid={os.getpid()}) {level} {time.strftime('%m-%d %H:%M:%S')} [stub.py:1] {text}",
        flush=True,
    )


def die(process: str = "EngineCore") -> None:
    """vLLM's last words: the cause in the engine's process, its echo in the API server's."""
    for line in ("EngineCore failed.", *DEATH):
        say(line, process, "ERROR")
    print(
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def rejected(fault: str, text: str) -> None:
    print(
        f"pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig\n{fault}\n  {text}"
    )
    print("    For further information visit https://errors.pydantic.dev/2.14/v/value_error", flush=True)
    sys.exit(1)


def check(speculation: Mapping[str, Any]) -> None:
    """The faults of a speculative config that vLLM refuses by itself."""
    if speculation.get("method") not in METHODS:
        rejected("method", f"Input should be {', '.join(map(repr, METHODS))}")
    if int(speculation.get("num_speculative_tokens", 1)) < 1:
        rejected("num_speculative_tokens", "Input should be greater than 0")
    model = str(speculation.get("model", ""))
    if model.startswith("/") and not Path(model).exists():
        rejected("", f"Value error, Invalid repository ID or local directory specified: '{model}'.")


def play_start(settings: Settings) -> None:
    """What vLLM prints on its way up, spread over the time that it takes."""
    if settings.width:
        assert settings.speculation is not None
        method = settings.method or settings.speculation.get("method")
        config = f"SpeculativeConfig(method='{method}', model='{settings.speculation.get('model')}', "
        config += f"num_spec_tokens={settings.width})"
    else:
        config = "None"
    worker = [
        f"Starting to load model {settings.model}...",
        "Loading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]",
        "Loading safetensors checkpoint shards: 100% Completed | 2/2 [00:00<00:00, 9.00it/s]",
        "Loading weights took 0.42 seconds",
        "GPU KV cache size: 123,456 tokens",
        "init engine (profile, create kv cache, warmup model) took 1.23 s",
    ]
    say("Resolved architecture: Gemma4ForCausalLM")
    if settings.width:
        say("Resolved architecture: Gemma4MTPModel")
    say(
        f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{settings.model}', speculative_config={config}"
    )
    while settings.stuck:
        time.sleep(3600)
    for index, line in enumerate(worker):
        time.sleep(settings.ready_after / len(worker))
        dies = settings.die == "start" or Path(settings.die or "/nowhere").is_file()
        if index == 3 and (dies or settings.width == settings.die_depth > 0):
            die()
        if line.startswith("Loading safe"):
            print(line, flush=True)
        else:
            say(line, "EngineCore")


def main() -> None:
    # The first process of a container has no default action for SIGTERM.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    arguments = sys.argv[2:] if sys.argv[1:2] == ["serve"] else sys.argv[1:]
    parser = argparse.ArgumentParser(prog="vllm serve", allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--served-model-name", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY", ""))
    parser.add_argument("--speculative-config", "-sc", type=json.loads)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    options, _ = parser.parse_known_args(arguments)
    WEDGED.unlink(missing_ok=True)
    if options.speculative_config is not None:
        check(options.speculative_config)
    settings = Settings.read(
        os.environ,
        model=options.model,
        name=options.served_model_name or options.model,
        speculation=options.speculative_config,
        api_key=options.api_key,
        cache={
            "block_size": "16",
            "cache_dtype": os.environ.get("STUB_CACHE_DTYPE") or options.kv_cache_dtype,
            "enable_prefix_caching": str(options.enable_prefix_caching),
            "engine": "0",
            "gpu_memory_utilization": str(options.gpu_memory_utilization),
            "num_gpu_blocks": "7716",
        },
    )
    play_start(settings)
    stub = Stub(settings)
    server = StubServer((options.host, options.port), stub, verbose=True)
    say(f"Starting vLLM server on http://{options.host}:{options.port}")
    print("INFO:     Application startup complete.", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stub.died.wait()
    time.sleep(0.5)  # the engine's death reaches the API server a moment after the failed answer has left
    die()


if __name__ == "__main__":
    main()
