# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every parser of what comes from outside: an answer that it takes, what may come instead, and which exceptions it may raise.

`PARSERS` is the table. tests/unit/fuzz/test_parsers.py holds it against the code, briefly; `make fuzz` does so for long.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from ansible_collections.sparkfleet.vllm.plugins.action import snapshot_peer
from ansible_collections.sparkfleet.vllm.plugins.module_utils._build import buildkit, destination
from ansible_collections.sparkfleet.vllm.plugins.module_utils._bundle import layout
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import inspected, json_text, upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import container as drift_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._drift import look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import container as gate_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate import docker_container
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gateway import answers as haproxy_answers
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import (
    bandwidth,
    daemon_flags,
    daemon_json,
    engine,
    engine_socket,
    fabric,
    guard,
    port_guard,
    ports,
    probes,
    processes,
    toolkit,
    unchanged,
    unit_guard,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.engine_socket import EngineError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.request import ProbeError, Request
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import engine as pulls
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import (
    ledger,
    oci,
    push,
    reference,
    registry,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import (
    compare,
    listing,
    manifest,
    model,
    pairing,
    pieces,
    weights,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._models import options as model_options
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import references
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import registry as prune_registry
from ansible_collections.sparkfleet.vllm.plugins.module_utils._prune import store as prune_store
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import document, lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._recipe import recipe as recipes
from ansible_collections.sparkfleet.vllm.plugins.module_utils._run import detached, lock_file, run_lock
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import gpu as series_gpu
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import spark as series_spark
from ansible_collections.sparkfleet.vllm.plugins.module_utils._series import text as series_text
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import (
    device_request,
    memory,
    patch,
    state,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import state as serve_state
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import verdict as gate_verdict
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import watched as serve_watched
from ansible_collections.sparkfleet.vllm.plugins.module_utils._status import day
from ansible_collections.sparkfleet.vllm.plugins.module_utils._status import look as status_look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._swarm import peer, torrent
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import machine, wire, words
from ansible_collections.sparkfleet.vllm.plugins.module_utils._unit import status as unit_status
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import (
    argv,
    ask_image,
    client,
    log,
    metrics,
    versions,
)
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import evidence as kept_evidence
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import judge as watchdog_judge
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import look as watchdog_look
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import memory as watchdog_memory
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import program as watchdog_program
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import seen as watchdog_seen
from ansible_collections.sparkfleet.vllm.plugins.module_utils._watchdog import settings as watchdog_settings
from ansible_collections.sparkfleet.vllm.plugins.modules import (
    host_unchanged,
    recipe_lock,
    serve_info,
    store_prune,
)
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import background
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import fleet as gateway_fleet
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway import pools as gateway_pools
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.gateway.refusal import GatewayError
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.host import requirements
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.monitoring import plan as monitoring_plan
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving import diff, record
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.status import report as status_report
from fuzz.strategies import JUNK, NO_JSON, TEXT, cut, documents, json_bytes, json_texts, lines, texts, trees
from helpers import drift, monitoring, status
from helpers import lock as locks
from helpers.recipe import SHIPPED
from helpers.serving import NOTHING_MORE
from helpers.weights import GOOD as WEIGHTS
from hypothesis import strategies as st


@dataclass(frozen=True)
class Parser:
    name: str
    read: Callable[[Any], object]
    """Reads it, and does with the value what whoever asked does next."""
    good: Any
    """What it takes without an exception."""
    inputs: st.SearchStrategy[Any]
    raises: tuple[type[Exception], ...] = ()
    """These very classes, and none below them."""

    def hold(self, given: Any) -> None:
        """:raises Exception: another one than those that are declared"""
        try:
            self.read(given)
        except self.raises as error:
            if type(error) not in self.raises:
                raise


PARSERS: list[Parser] = []


def parser(
    name: str, good: Any, inputs: st.SearchStrategy[Any], *raises: type[Exception]
) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    def add(read: Callable[[Any], object]) -> Callable[[Any], object]:
        PARSERS.append(Parser(name, read, good, inputs, raises))
        return read

    return add


@functools.cache
def scratch() -> Path:
    """A folder for what can only be read from files."""
    return Path(_KEPT.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))


_KEPT = contextlib.ExitStack()


def held(name: str, content: str | bytes) -> Path:
    """A file with that content."""
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    return path


def of_json(good: Any) -> tuple[str, st.SearchStrategy[str]]:
    return json.dumps(good), json_texts(good)


def of_bytes(good: Any) -> tuple[bytes, st.SearchStrategy[bytes]]:
    return json.dumps(good).encode(), json_bytes(good)


def of_tree(good: Any) -> tuple[Any, st.SearchStrategy[Any]]:
    return good, trees(good)


# -- a server

_METRICS = """\
# HELP vllm:spec_decode_num_drafts_total Number of drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 10.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 20.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 12.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 8.0
vllm:generation_tokens_total{engine="0",model_name="m"} 99.0
vllm:cache_config_info{block_size="16",cache_dtype="fp8",engine="0"} 1.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
process_start_time_seconds 1.7e+09
"""


@parser("metrics", _METRICS, documents(_METRICS), metrics.MetricsError)
def _metrics(text: str) -> object:
    since = metrics.delta(metrics.Counters(), metrics.parse(text))
    return metrics.labels(text, "vllm:cache_config_info"), since.standard_errors, since.mean_acceptance_length


_EVENT = {
    "id": "x",
    "choices": [{"index": 0, "delta": {"content": "a", "reasoning": None}}],
    "usage": {"completion_tokens": 3},
}
_STREAM = [f"data: {json.dumps(_EVENT)}", "", "data: [DONE]"]
_EVENTS = st.one_of(json_texts(_EVENT).map("data: {}".format), st.sampled_from(_STREAM), TEXT)


@parser(
    "chat stream",
    _STREAM,
    st.lists(_EVENTS, max_size=4).map(lambda some: [*some, "data: [DONE]"]),
    client.ServerError,
)
def _stream(events: list[str]) -> object:
    return client.read_stream(events).decode_rate


class _Silent(client.Server):
    """A server whose one answer is made up."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1")
        self._body_given = body

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return client._Answer(path, 200, self._body_given)


_ANSWER = {
    "version": "0.25.0",
    "data": [{"id": "m"}],
    "choices": [{"message": {"content": [{"text": "a"}]}}],
    "usage": {"completion_tokens": 1},
    "error": {"message": "no"},
}


@parser("answers of a server", *of_bytes(_ANSWER), client.ServerError)
def _answers(body: bytes) -> object:
    server = _Silent(body)
    with contextlib.suppress(client.ServerError):
        client._Answer("/", 400, body).json()
    return server.healthy(), server.version(), server.models(), server.complete("m", "hi", 1)


_LOG = """\
(APIServer pid=1) INFO 11-24 00:00:00 [api_server.py:1] non-default args: {'port': 8000}
INFO 11-24 00:00:01 [core.py:2] Initializing a V1 LLM engine (v0.25.0) with config: speculative_config=SpeculativeConfig(method='mtp', num_spec_tokens=1)
INFO 11-24 00:00:02 [model.py:3] Resolved architecture: Gemma4MTPModel
INFO 11-24 00:00:03 [loader.py:4] Loading weights took 12.5 seconds
INFO 11-24 00:00:04 [runner.py:5] Model loading took 1.5 GiB memory and 3 seconds
INFO 11-24 00:00:05 [kv.py:6] GPU KV cache size: 1,234 tokens
Capturing CUDA graphs: 50%|#####     | 5/10
INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200
ERROR 11-24 00:00:07 [core.py:7] Failed core proc(s): {'EngineCore_0': -9}
torch.OutOfMemoryError: CUDA out of memory.
pydantic_core.ValidationError: 1 validation error
  Value error, no such thing [type=value_error, input_value=1]
RuntimeError: failed with output:
    nvcc fatal: error"""


@parser("log of vLLM", _LOG.splitlines(), lines(_LOG.splitlines()))
def _log(some: list[str]) -> object:
    for line in some:
        log.phase(line), log.shows_progress(line), log.message(line)
    reason = log.death_reason(some)
    return log.speculation(some), log.tail(some, reason)


# -- the watchdog

_MEMORY = watchdog_memory.dump(
    watchdog_memory.Memory(
        boot="one",
        life="c now",
        answered=True,
        progress=(1, None, 2, 3),
        running=1,
        window={"start": 1.0, "drafts": 5, "first": 3},
        judged={"drafts": 5, "rate": 0.5},
        ended=(1.0,),
        restarts=({"unix": 1.0, "steady": 1.0, "boot": "one"},),
        since={"wedged": 1.0},
    )
)
_VERDICT = {"verdict": "down", "restarts": [1.0, 2.0], "findings": [{"kind": "wedged"}]}


def _judged(known: watchdog_memory.Memory) -> object:
    record = watchdog_seen.Record("r", "c", "http://127.0.0.1", "m", 0.4, 2, speculates=True)
    counters = metrics.Counters(drafts=9, per_position={0: 1}, process_start=1.0, generated=1, running=1)
    there = watchdog_seen.Container("c", "running", "now")
    now = watchdog_seen.Now(1e9, 1000.0, "one")
    look = watchdog_seen.Look(now, record=record, container=there, counters=counters)
    settings = watchdog_settings.Settings(mode="act")
    watchdog_judge.canary_due(known, look, settings)
    found = watchdog_judge.judge(known, look, settings)
    return watchdog_judge.action(found, look, settings), watchdog_memory.dump(found.memory)


@parser("memory of the watchdog", *of_bytes(_MEMORY))
def _watchdog_memory(content: bytes) -> object:
    return _judged(watchdog_memory.undump(content, None))


@parser("former verdict", *of_bytes(_VERDICT))
def _former_verdict(content: bytes) -> object:
    return watchdog_program._gist(content), _judged(watchdog_memory.undump(None, content))


_CONFIG = watchdog_settings.config(watchdog_settings.Settings())


@parser("settings of the watchdog", *of_json(_CONFIG), watchdog_settings.SettingsError)
def _watchdog_settings(text: str) -> object:
    places = watchdog_settings.Places(scratch() / "watched")
    held("watched/watchdog/config.json", text)
    return watchdog_settings.load(places), watchdog_settings.api_key(places)


@parser("nvidia-smi", "96, 12.50, 208, 0x0000000000000028", texts("96 %, [N/A], 208, 0x28\n"))
def _nvidia_smi(text: str) -> object:
    return watchdog_look.gpu_of(text), kept_evidence.clean(text.encode(errors="replace"), ["96"])


# -- images


@parser(
    "image reference",
    "r:5000/a/b:t",
    texts("r.example:5000/vllm/vllm-openai:tag@" + drift.DIGEST),
    ValueError,
)
def _reference(text: str) -> object:
    return reference.parse_reference(text), reference.complaint(text)


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


_MANIFEST: dict[str, Any] = {
    "config": {"digest": drift.DIGEST, "size": 1, "mediaType": "x"},
    "layers": [{"digest": drift.OTHER, "size": 2}],
}
_INDEX = {
    "manifests": [
        {"digest": drift.OTHER, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": drift.DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "arm64"}},
    ]
}


@parser("image index", *of_bytes(_INDEX), oci.ImageError)
def _index(content: bytes) -> object:
    return oci.read_image(
        "sha256:0",
        "arm64",
        lambda digest: content if digest == "sha256:0" else json.dumps(_MANIFEST).encode(),
    ).size


@parser("image manifest", *of_bytes(_MANIFEST), oci.ImageError)
def _manifest(content: bytes) -> object:
    image = oci.read_image("sha256:0", "arm64", lambda _digest: content)
    return image.size, [oci.blob_path(blob.digest) for blob in image.blobs]


class _Blobs:
    """Where the configuration of an image comes from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def manifest(self, _digest: str) -> bytes:
        return json.dumps(_MANIFEST).encode()

    @contextlib.contextmanager
    def blob(self, _digest: str, _begin: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        yield 0, iter([self._content])


@parser("image configuration", *of_bytes({"config": {"Labels": {buildkit.LABEL: "x"}}}))
def _configuration(content: bytes) -> object:
    return destination._label(_Blobs(content), "sha256:0", "arm64")  # type: ignore[arg-type]


@parser("stored manifest", *of_bytes(_MANIFEST))
def _stored(content: bytes) -> object:
    root, digest = scratch() / "registry", _sha256(content)
    path = held(f"registry/{oci.blob_path(digest)}", content)
    link = held(f"registry/{oci.manifest_link('o/n', digest)}", digest)
    try:
        return prune_registry.things(root)
    finally:
        path.unlink()
        link.unlink()
        link.parent.rmdir()


_CHALLENGE = 'Bearer realm="https://r.example/token",service="r",scope="repository:a/b:pull", Basic realm="x"'
_TOKEN = {"token": "t", "access_token": "t"}


@parser("challenge of a registry", _CHALLENGE, texts(_CHALLENGE), upstream.Unauthorized, upstream.Unusable)
def _challenge(header: str) -> object:
    token = upstream.Answer(200, {}, b'{"token": "t"}')
    refused = upstream.Answer(401, {"WWW-Authenticate": header})
    return registry.authorize(
        refused, "https://r.example", "a/b", registry.Credentials("u", "p"), lambda *_a, **_k: token
    )


@parser(
    "answers of a registry",
    [[401, _CHALLENGE, ""], [200, "", json.dumps(_TOKEN)], [200, drift.DIGEST, ""], [200, "", "{}"]],
    st.lists(
        st.tuples(
            st.sampled_from([200, 401, 403, 404, 500, 302]),
            st.one_of(texts(drift.DIGEST), texts(_CHALLENGE)),
            json_texts(_TOKEN),
        ),
        min_size=4,
        max_size=4,
    ),
    upstream.NotFound,
    upstream.Unauthorized,
    upstream.Unusable,
)
def _registry(given: list[tuple[int, str, str]]) -> object:
    answers = iter(
        upstream.Answer(
            status,
            {"WWW-Authenticate": header, "Docker-Content-Digest": header, "Content-Type": header},
            body.encode(errors="surrogatepass"),
        )
        for status, header, body in given
    )
    return registry.resolve(reference.parse_reference("r.example/a/b:t"), ask=lambda *_a, **_k: next(answers))


_PULL = {
    "id": "a",
    "status": "Downloading",
    "progressDetail": {"current": 1, "total": 2, "units": "s"},
    "errorDetail": {"message": ""},
}
_PULLS = st.lists(trees(_PULL), max_size=4)


@parser("stream of a pull", [_PULL, {**_PULL, "status": "Extracting"}], _PULLS, pulls.PullError)
def _pull(events: list[Any]) -> object:
    pull = pulls.Pull()
    for event in events:
        pull.feed(event)
        pull.line(1.0)
    return pull.line(2.0)


_PUSH = {
    "id": "a",
    "status": "Pushing",
    "progressDetail": {"current": 1, "total": 2},
    "aux": {"Tag": "t", "Digest": drift.DIGEST},
}


@parser("stream of a push", [_PUSH], st.lists(trees(_PUSH), max_size=4), push.PushError)
def _push(events: list[Any]) -> object:
    pushed = push.Push()
    for event in events:
        pushed.feed(event)
        pushed.line()
    return pushed.digest


_BUILD = """\
#12 [csrc-build 5/9] RUN python3 setup.py bdist_wheel
#12 1.234 [45/310] Building CUDA object
#12 DONE 3.4s
#13 ERROR: process did not complete
no space left on device"""


@parser("log of a build", _BUILD.splitlines(), lines(_BUILD.splitlines()))
def _build(some: list[str]) -> object:
    told = buildkit.Log()
    for line in some:
        told.feed(line)
        told.line(60.0)
    return buildkit.refusal(1, told, "/x")


@parser(
    "words of an engine", "unknown runtime", texts("error running prestart hook #0: requested mode is cdi")
)
def _engine_words(said: str) -> object:
    return device_request.cure(said), pulls.refusal(said), push.refusal(said)


# -- models

_COMMIT, _SHA = "c" * 40, "d" * 64
_LISTING = {
    "sha": _COMMIT,
    "siblings": [
        {"rfilename": "config.json", "size": 2, "blobId": _COMMIT},
        {"rfilename": "a.safetensors", "lfs": {"size": 9, "sha256": _SHA}},
    ],
}


@parser("listing of the Hub", *of_tree(_LISTING), listing.ListingError)
def _listing(data: Any) -> object:
    commit, entries = listing.parse(data)
    names = [entry if isinstance(entry, str) else entry.path for entry in entries]
    return commit, [list(manifest.path_problems(name)) for name in names]


_FILES = {"a/b.json": {"size": 2, "sha256": _SHA}, "c": {"size": 0, "sha256": _SHA}}


@parser(
    "files of a lock",
    ["o/n", _COMMIT, _FILES],
    st.tuples(st.one_of(st.just("o/n"), JUNK), st.one_of(st.just(_COMMIT), JUNK), trees(_FILES)),
    manifest.ManifestError,
)
def _files(given: Any) -> object:
    repository, commit, files = given
    snapshot = {"repository": repository, "commit": commit, "files": files}
    return model_options.parse({"store": "/s", "snapshots": [snapshot]}, {})[0].size


_MODEL_CONFIG = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "text_config": {
        "hidden_size": 8,
        "vocab_size": 100,
        "num_hidden_layers": 2,
        "layer_types": ["full_attention", "sliding_attention"],
        "head_dim": 4,
        "global_head_dim": 8,
        "num_key_value_heads": 2,
        "per_layer_config": {"1": {"head_dim": 4}},
    },
    "block_size": 4,
    "dflash_config": {"target_layer_ids": [0, 1]},
    "time_step_limit": [0, 1.5],
}
_DRAFT_CONFIG = {
    "architectures": ["Gemma4AssistantForCausalLM"],
    "backbone_hidden_size": 8,
    "text_config": _MODEL_CONFIG["text_config"],
    "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1]},
}
_PLACES = {"weight_map": {"a": "x.safetensors", "b": "x.safetensors"}}


def _model(name: str, config: bytes, index: bytes = b"", head: bytes = WEIGHTS) -> weights.Model:
    indexes = {weights.INDEX: index} if index else {}
    return weights.Model(name, config, indexes, {"x.safetensors": weights.WeightFile(len(WEIGHTS), head)})


@parser("configs of a pair", *of_tree([_MODEL_CONFIG, _DRAFT_CONFIG]))
def _configs(given: Any) -> object:
    body, draft = given if isinstance(given, list) and len(given) == 2 else (given, given)
    one, other = (json.dumps(each).encode() for each in (body, draft))
    speculation = {"num_speculative_tokens": 3, "method": "mtp"}
    return [
        str(finding)
        for judged in (
            pairing.judge(_model("body", one), _model("draft", other), speculation=speculation),
            pairing.judge(_model("body", one), None, True, speculation),
        )
        for finding in (*judged.problems, *judged.unseen)
    ]


@parser("config.json", *of_bytes(_MODEL_CONFIG))
def _config(content: bytes) -> object:
    held("model/x.safetensors", WEIGHTS)
    return pairing.judge(model.read("body", held("model/config.json", content).parent), None, True)


@parser("index of weights", *of_bytes(_PLACES))
def _places_of(content: bytes) -> object:
    return pairing.judge(_model("body", b"{}", content), None)


_HEADER = json.loads(WEIGHTS[8 : 8 + int.from_bytes(WEIGHTS[:8], "little")])


def _packed(text: str) -> bytes:
    content = text.encode(errors="surrogatepass")
    return len(content).to_bytes(8, "little") + content


@parser("header of weights", WEIGHTS, st.one_of(json_texts(_HEADER).map(_packed), st.binary(max_size=20)))
def _header(head: bytes) -> object:
    return weights.read_header("x", weights.WeightFile(max(len(head), len(WEIGHTS)), head))


_OF_TORRENT = manifest.Manifest("o/n", _COMMIT, {"a": manifest.File(5, _SHA), "b": manifest.File(0, _SHA)})
_TORRENT = torrent.encode(_OF_TORRENT, {"a": b"h" * 32, "b": b""})


@parser(
    "description of a torrent", _TORRENT, st.one_of(texts(_TORRENT), cut(_TORRENT)), torrent.DescriptionError
)
def _torrent(text: str) -> object:
    return torrent.decode(_OF_TORRENT, text)


_STAT_CACHE = {"version": 1, "files": {"a": [5, 1, 2, 3, _SHA]}}
_PIECES = {"version": pieces.CACHE_VERSION, "piece": 16384, "files": {_SHA: "ab" * 32}}


@parser("stat cache", *of_json({**_STAT_CACHE, "version": compare.CACHE_VERSION}))
def _stat_cache(text: str) -> object:
    path = held("stat.json", text)
    return compare.compare(_OF_TORRENT.files, {"a": path.stat()}, compare.read_cache(path))


@parser("piece cache", *of_json(_PIECES))
def _piece_cache(text: str) -> object:
    return pieces.read_cache(held("pieces.json", text), 16384)


_STATUS = {"state": "whole", "text": "x", "problem": "", "snapshots": [{"state": "present", "path": "/x"}]}


@parser("status of a peer", *of_json(_STATUS))
def _status(text: str) -> object:
    path = held("models/.peer/status.json", text)
    return peer.status(str(path.parents[2]))


@parser(
    "poll of a peer",
    "sparkfleet-peer:runs\n" + json.dumps(_STATUS),
    st.one_of(
        json_texts(_STATUS).map("motd\nsparkfleet-peer:runs\n{}".format),
        documents(f"sparkfleet-peer:runs\n{json.dumps(_STATUS)}"),
    ),
)
def _peer_poll(stdout: str) -> object:
    _runs, status = snapshot_peer.parse_poll(stdout)
    return snapshot_peer._answer(status)


# -- recipe, lock, inventory

_RECIPE = SHIPPED.read_text()
_LOCK: dict[str, Any] = {
    "version": 1,
    "recipe": "r",
    "image": {
        "reference": "vllm/vllm-openai:t",
        "digest": drift.DIGEST,
        "pinned": f"vllm/vllm-openai@{drift.DIGEST}",
    },
    "models": {
        role: {
            "repository": "o/n",
            "revision": "main",
            "commit": _COMMIT,
            "files": {"a.json": {"size": 1, "sha256": _SHA}},
        }
        for role in ("body", "draft")
    },
    "patches": [
        {
            "name": "p.py",
            "repository": "o/n",
            "commit": _COMMIT,
            "path": "vllm/p.py",
            "size": 1,
            "md5": "e" * 32,
            "sha256": _SHA,
        }
    ],
}
_YAML = [
    *NO_JSON,
    "a: &x [*x]",
    "a: [" + "[" * 3000,
    "a: 0x_",
    "? [a]\n: b",
    "a: !!python/name:os.system x",
    "a: 1\na: 2",
    "\t",
    "<<: 1",
    "a: *b",
]


def _dumped(value: Any) -> str:
    return str(yaml.safe_dump(value, allow_unicode=True))


@parser("recipe", _RECIPE, st.one_of(documents(_RECIPE), st.sampled_from(_YAML)))
def _recipe(text: str) -> object:
    document.load(text, "r.yml")
    _read, problems = recipes.parse(text, "r.yml")
    return [str(problem) for problem in problems]


@parser("recipe as a tree", *of_tree(yaml.safe_load(_RECIPE)))
def _recipe_tree(data: Any) -> object:
    problems = recipes.validate(data, "r.yml")
    return [str(problem) for problem in problems], problems or recipes.complete(data)


@parser("lock", *of_tree(_LOCK))
def _lock_tree(data: Any) -> object:
    made, problems = lock.parse(_dumped(data), "l.yml")
    return problems or (lock.against(locks.RECIPE, made), lock.summary(made), lock.lines(made))


@parser("lock as text", _dumped(_LOCK), st.one_of(documents(_dumped(_LOCK)), st.sampled_from(_YAML)))
def _lock_text(text: str) -> object:
    return lock.parse(text, "l.yml"), recipe_lock.read(held("l.yml", text))


_INPUTS: dict[str, Any] = {
    "recipe": "r",
    "name": "sparkfleet-vllm",
    "image": f"vllm/vllm-openai@{drift.DIGEST}",
    "models": {"body": {"path": "/m/b", "mount": "/models/b"}},
    "patches": [
        {"host_path": "/p/a.py", "target": "/site/a.py", "mount": True, "md5": "e" * 32, "sha256": _SHA}
    ],
    "arguments": {
        "served-model-name": "m",
        "speculative-config": {"method": "mtp", "num_speculative_tokens": 1},
    },
    "extra_arguments": {"max-num-seqs": 4},
    "environment": {"A": 1},
    "port": 8000,
    "bind": "127.0.0.1",
    **NOTHING_MORE,
    "log_driver": "json-file",
    "log_options": {"max-size": "50m"},
    "entrypoint": ["vllm", "serve"],
    "caches": {"torch": "/root/.cache/torch"},
    "shm_size": "1g",
    "security": "least",
    "gpus": True,
    "published": {
        "source": "x",
        "figures": [{"num_speculative_tokens": 1, "tokens_per_second": 52.6, "rates": [0.7]}],
    },
    "refused": [{"vllm": ">=0.25,<0.27", "because": "x"}],
    "measured_depth": 1,
    "allow_deeper": False,
    "acceptance_floor": 0.4,
    "minimum_drafts": 200,
    "memory_fraction": 0.6,
    "memory_minimum_bytes": None,
}
_FREE = (
    "arguments",
    "extra_arguments",
    "published",
    "refused",
    "caches",
    "log_options",
    "ulimits",
    "mounts",
    "host_environment",
)
"""The role declares a type for each input. Of these it knows no more than that they are mappings or lists."""


@st.composite
def _inventories(draw: st.DrawFn) -> dict[str, Any]:
    changed = {name: draw(trees(_INPUTS[name])) for name in draw(st.sets(st.sampled_from(_FREE), min_size=1))}
    return _INPUTS | {
        name: value for name, value in changed.items() if isinstance(value, type(_INPUTS[name]))
    }


@parser("inventory of a server", _INPUTS, _inventories(), record.SpecError, argv.ArgumentsError)
def _inventory(inputs: Any) -> object:
    made = record.serving_record(inputs)
    return argv.options(made["container"]["command"]), diff.lines({}, diff.whole(made["container"]))


@parser(
    "versions",
    ["0.25.1", "v0.25.0-aarch64", ">=0.25,<0.27"],
    st.lists(texts(">=0.25.1rc2,<0.27"), min_size=3, max_size=3),
)
def _versions(given: list[str]) -> object:
    version, tag, span = given
    span = span if versions.complaint(span) is None else ">=0.25"
    return (
        versions.release(version),
        versions.tagged(tag),
        versions.within(version, span),
        engine.release(version),
    )


@parser("requirement", "docker>=7,<8", texts("docker>=7,<8"), requirements.RequirementError)
def _requirement(text: str) -> object:
    return requirements.parse_requirement(text)


# -- what lies on a host

_RECORD = {"serving": drift.SERVING, "gate": {"host": {"driver": "580"}, "acceptance_rate": 0.5}}
_STATE = {"version": 1, "current": _RECORD, "last_good": None}


@parser("state.json", *of_json(_STATE), ValueError, state.json_text.JsonError)
def _state(text: str) -> object:
    known = state.parse(text)
    return state.record(known, drift.SERVING, {"host": {}}), state.unreadable("x", ValueError())


@parser("state.json for prune", *of_json(_STATE), references.PruneError)
def _pruned_state(text: str) -> object:
    known = references.References()
    path = held("state.json", text)
    references.refer_state(known, store_prune.read_json(path), str(path))
    return known


@parser("state.json for a quick look", *of_json(_STATE))
def _quick_state(text: str) -> object:
    return host_unchanged.current(held("state.json", text))


_SETTLED = {
    "version": 1,
    "inputs": "x",
    "watch": {"environment": "/e", "files": [], "urls": []},
    "seen": {"a": "b"},
    "proved": True,
}


@parser("settled.json", *of_json(_SETTLED))
def _settled(text: str) -> object:
    return host_unchanged.read(held("settled.json", text))


_LEDGER = {"version": 1, "images": [f"vllm/vllm-openai@{drift.DIGEST}"]}


@parser("images.json", *of_json(_LEDGER), ledger.LedgerError)
def _ledger(text: str) -> object:
    return ledger.render(ledger.parse(text))


@parser("images.json for prune", *of_json(_LEDGER), references.PruneError)
def _pruned_ledger(text: str) -> object:
    return store_prune.read_ledger(held("images.json", text))


_RUN = {
    "version": 1, "run": "a", "holder": "me@here", "controller": "c", "since": "2026-11-24T00:00:00Z", "playbook": "site", "job": "",
    "started": "", "pid": 5, "lease": 120,
}  # fmt: skip


@parser("run.json", *of_json(_RUN))
def _run(text: str) -> object:
    held("run.json", text)
    seen = lock_file.LockFile(scratch()).look()
    seen = run_lock.Seen(seen.record, seen.damage, 7.5)
    run = {"id": "b", "controller": "c"}
    return [
        run_lock.decide(seen, run), run_lock.refusal(seen, run), run_lock.refusal(seen, {"id": "b", "controller": "d"}),
        run_lock.alive(seen), run_lock.holder(seen),
        run_lock.lost(seen), run_lock.busy(seen), run_lock.taken_over(seen, run_lock.DEAD), run_lock.names(seen, "a"),
    ]  # fmt: skip


@parser("end of a job", *of_json({"code": 0, "msg": ""}))
def _end(text: str) -> object:
    return detached.Job(held("job/ended", text).parent, 1.0).end()


@parser(
    "poll of a job",
    "sparkfleet-job:ended\na\nb\n",
    documents("motd\r\nsparkfleet-job:running\na line\nanother\n"),
)
def _job_poll(stdout: str) -> object:
    return background.parse_poll(stdout)


_DAEMON = {
    "registry-mirrors": ["http://u:p@m:5000/"],
    "insecure-registries": ["m:5000"],
    "runtimes": {"nvidia": {"path": "x", "args": []}},
    "features": {"containerd-snapshotter": True},
    "live-restore": True,
    "log-opts": {"max-size": "1m"},
}


@parser("daemon.json", *of_json(_DAEMON), daemon_json.DaemonConfigError)
def _daemon(text: str) -> object:
    before = daemon_json.parse(text)
    after = daemon_json.wanted(
        before, ["http://m2:5000"], True, {"log-opts": {"max-size": "2m"}}, "http://f:5000"
    )
    plan = daemon_json.plan(
        before,
        after,
        running=True,
        engine={"live_restore": True, "runtimes": ["nvidia"], "registry_mirrors": []},
    )
    daemon_flags.conflict(["registry-mirrors"], after)
    return (
        daemon_json.render(plan.content, text),
        daemon_json.redacted(before),
        daemon_json.store_differs(after, {"storage_driver": "x"}),
    )


_BUNDLE = {
    "version": 1, "recipe": "r", "created": "2026-11-24", "machine": "aarch64", "python": "3.12", "image": f"o/n@{drift.DIGEST}",
    "requirements": ["docker"], "packages": [],
    "files": {path: {"size": 1, "sha256": _SHA} for path in ("recipe.yml", "lock.yml", "simple/a/a.whl")},
}  # fmt: skip


@parser("bundle.json", *of_json(_BUNDLE), layout.BundleError)
def _bundle(text: str) -> object:
    bundle = layout.read(held("bundle/bundle.json", text).parent)
    assert bundle is not None
    return bundle.render(), layout.summary(bundle), layout.damaged_by_size(scratch(), bundle.files.items())


_ASKED = {"package": "vllm", "files": {"vllm/a.py": None, "vllm/b.py": "/site/vllm/b.py"}}
_FOUND = {
    "directory": "/site/vllm",
    "version": "0.25.0",
    "files": {
        path: {"target": f"/site/{path}", "md5": "e" * 32, "sha256": _SHA}
        for path in ("vllm/a.py", "vllm/b.py")
    },
}


@parser("place of a patch, said by an image", *of_bytes(_FOUND), patch.PatchError)
def _heard(said: bytes) -> object:
    answer = patch.answer(said.decode(errors="replace"), _ASKED, "image")
    locked = {"name": "a.py", "path": "vllm/a.py", "md5": "e" * 32, "sha256": _SHA}
    placed = patch.place(locked, answer["files"]["vllm/a.py"], "/p/a.py")
    assert placed["target"].endswith("/vllm/a.py") and ":" not in placed["target"]
    return placed


@parser("place of a patch, remembered", *of_json({"question": _ASKED, "answer": _FOUND}))
def _recalled(text: str) -> object:
    return patch.recalled(text, _ASKED)


_PROBE = {
    "state": "raised", "version": "0.25.0", "peak_kib": 5, "names": [], "killed": [], "code": 1, "why": "x",
    "chain": [{"types": ["ValidationError", "ValueError"], "errno": None}],
}  # fmt: skip


@parser(
    "verdict of an image",
    [*_LOG.splitlines(), ask_image.MARK + json.dumps(_PROBE)],
    st.lists(st.one_of(json_texts(_PROBE).map(ask_image.MARK.__add__), TEXT), max_size=3),
)
def _verdict(some: list[str]) -> object:
    verdict = ask_image.judge(some, 1)
    return ask_image.judge(some, None), verdict.accepted or ask_image.refusal("x", verdict)


# -- an engine


@parser("time", "2026-11-24T00:00:00.123456789Z", texts("2026-11-24T00:00:00.123456789+01:00"), ValueError)
def _time(text: str) -> object:
    return gate_container.parse_time(text)


_INFO = {
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "DriverStatus": [["driver-type", engine.SNAPSHOTTER]],
    "Containerd": {"Address": "/run/containerd/containerd.sock"},
    "RegistryConfig": {
        "IndexConfigs": {"m:5000": {"Secure": False}},
        "Mirrors": ["m"],
        "InsecureRegistryCIDRs": ["::1/128"],
    },
    "Runtimes": {"nvidia": {}},
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}],
    "ServerVersion": "29.5.0",
}


_CONTAINERS = [
    {
        "Id": "c" * 64, "Names": ["/x"], "Image": "o/n", "ImageID": drift.DIGEST, "Labels": {"a": "b"},
        "Ports": [{"PrivatePort": 8000, "PublicPort": 8000, "IP": "127.0.0.1", "Type": "tcp"}],
        "Mounts": [{"Source": "/srv/s/models", "Name": "v"}],
    }
]  # fmt: skip
_IMAGES = [
    {
        "Id": drift.DIGEST,
        "Size": 9,
        "SharedSize": -1,
        "RepoTags": ["o/n:t"],
        "RepoDigests": [f"o/n@{drift.DIGEST}"],
    }
]


@parser("what an engine says of itself", *of_bytes(_INFO), EngineError)
def _info(content: bytes) -> object:
    engine_socket._message(content)
    info = engine_socket.read(content, "/info", engine.INFO)
    return engine._info(info, ""), engine.counts_packed_layers(info)


@parser("log of an engine", b"\x01\0\0\0\0\0\0\x04text", st.binary(max_size=60))
def _engine_log(content: bytes) -> object:
    return engine_socket._unframed(content)


@parser("containers of an engine", *of_bytes(_CONTAINERS), EngineError)
def _containers(content: bytes) -> object:
    listed = engine_socket.read(content, "/containers/json", engine.CONTAINERS)
    references.refer_containers(references.References(), listed or [], {"v": "/x"}, "/srv/s", [], str)
    return ports.ports(_host("/proc/net/tcp", _TCP), engine._containers(listed)["containers"])


@parser("images of an engine", *of_bytes(_IMAGES), EngineError)
def _images(content: bytes) -> object:
    listed = engine_socket.read(content, "/images/json", engine.IMAGES) or []
    return references.judge_images([f"o/n@{drift.DIGEST}", "x@sha256:y"], listed, [], references.References())


class _Engine(docker_container.DockerContainer):
    """A container of an engine that says what it likes."""

    def __init__(self, data: Any = None, lines: str = "") -> None:
        self._name, self._secrets = "x", []
        self._api: Any = SimpleNamespace(
            inspect_container=lambda _name: data,
            logs=lambda *_args, **_options: lines.encode(errors="surrogatepass"),
        )


_GIVEN = drift.running(
    HostConfig__Devices=[{"PathOnHost": "/dev/x", "PathInContainer": "/dev/x", "CgroupPermissions": "rw"}],
    HostConfig__Ulimits=[{"Name": "memlock", "Soft": -1, "Hard": -1}],
)


@parser("a container, inspected", *of_tree(_GIVEN), docker_container.EngineError)
def _inspected(data: Any) -> object:
    seen = _Engine(data).inspect()
    assert seen is not None
    found = drift_container.compare(
        drift.CONTAINER, data, drift.IMAGE, drift.IMAGE, {"VLLM_API_KEY": "k" * 9}
    )
    return (
        seen.started,
        found,
        drift_container.life(data, "x", Unit()),
        drift_container.has_gpu(data["HostConfig"]),
        serve_info.bound(data),
    )


_STAMPED = "".join(
    f"2026-11-24T00:00:00.{number:09}Z {line}\n" for number, line in enumerate(_LOG.splitlines())
)


@parser("log of a container", _STAMPED, documents(_STAMPED))
def _container_log(text: str) -> object:
    return [gate_container.parse_time(line.time) for line in _Engine(lines=text).log(0.0)]


@parser("an image, inspected", *of_tree(drift.IMAGE), EngineError)
def _image(data: Any) -> object:
    if said := inspected.unfit("x", data, inspected.IMAGE):
        raise EngineError(said)
    return drift_container.compare(drift.CONTAINER, drift.running(), data, data)


_ON_HOST = {"/info": {"ID": "x"}, "image": drift.IMAGE, "container": drift.running()}


@parser("a host, looked at twice", *of_tree(_ON_HOST), EngineError)
def _unchanged(data: Any) -> object:
    known = data if isinstance(data, dict) else {}
    part = {"/info": "/info", "/imag": "image", "/cont": "container"}
    watch = {"environment": str(scratch() / "none"), "files": [], "urls": []}
    serving = {**drift.SERVING, "models": {}, "files": []}
    return unchanged.of_host(str(scratch()), serving, watch, lambda url: known.get(part[url[:5]]))


@parser("arguments that hold JSON", *of_json({"method": "mtp", "num_speculative_tokens": 1}))
def _options(text: str) -> object:
    words = ["/models/b", "--speculative-config", text, "--max-num-seqs", "4"]
    look._given(words)
    return list(drift_container._arguments(words, drift.CONTAINER["command"])), list(diff._arguments(words))


# -- /proc and the files of a system

_ROOT = "host"


def _host(path: str, content: str) -> Request:
    held(f"{_ROOT}{path}", content)
    return Request(root=scratch() / _ROOT)


_MEMINFO = "MemTotal:       1000 kB\nMemAvailable:    500 kB\nHugetlb:           0 kB\nSwapTotal:         5 kB\nHugePages_Total:       0\n"


@parser("/proc/meminfo", _MEMINFO, documents(_MEMINFO), ProbeError, memory.MeminfoError)
def _meminfo(text: str) -> object:
    request = _host("/proc/meminfo", text)
    sizes = memory.meminfo(request.at("/proc"))
    return memory.usable(sizes), probes.memory(request)


_PID_STATUS = "Name:\tpython3\nUmask:\t0022\nVmRSS:\t     100 kB\n"
_SMAPS = "00400000-7ffd [rollup]\nRss:  1 kB\nPss_Anon:             100 kB\n"


@parser("/proc/PID", _PID_STATUS + _SMAPS, documents(_PID_STATUS + _SMAPS))
def _pid(text: str) -> object:
    held(f"{_ROOT}/proc/7/cgroup", text)
    held(f"{_ROOT}/proc/7/smaps_rollup", text)
    proc = held(f"{_ROOT}/proc/7/status", text).parents[1]
    return memory.largest(proc), memory.ceiling(100, memory.holders(proc), 7)


_PID_STAT = "7 (python 3) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2\n"


@parser("/proc/PID/stat", _PID_STAT, documents(_PID_STAT))
def _started(text: str) -> object:
    held(f"{_ROOT}/proc/stat", "cpu 1\nbtime 1700000000\n")
    return processes.started(_host("/proc/7/stat", text), 7)


_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0
"""


@parser("/proc/net/tcp", _TCP, documents(_TCP))
def _tcp(text: str) -> object:
    return ports.ports(_host("/proc/net/tcp", text), [])


_MOUNTS = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\n"


@parser("/proc/self/mountinfo", _MOUNTS, documents(_MOUNTS), references.PruneError)
def _mountinfo(text: str) -> object:
    return prune_store.mount_points(held("mountinfo", text))


_OS = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n# x\n'


@parser("/etc/os-release", _OS, documents(_OS), ProbeError)
def _os_release(text: str) -> object:
    return probes.operating_system(_host("/etc/os-release", text))


_TOML = "[nvidia-container-runtime]\nmode = \"cdi\"\n[nvidia-container-runtime-hook]\nskip-mode-detection = true\nroot = '/x'\n"
_DPKG = "Package: nvidia-container-toolkit\nStatus: install ok installed\nVersion: 1.17.0\n\nPackage: x\n"
_DPKG_LOG = "2026-11-24 00:00:00 upgrade nvidia-container-toolkit:arm64 1.16 1.17\n"


@parser("files of the toolkit", _TOML, documents(_TOML + _DPKG + _DPKG_LOG))
def _toolkit(text: str) -> object:
    for path in ("/var/lib/dpkg/status", "/var/log/dpkg.log", "/proc/7/environ"):
        held(f"{_ROOT}{path}", text)
    return (
        toolkit.look(_host(toolkit.CONFIG, text), {"pid": 7}),
        engine.images_root(_INFO, text),
        probes.remove_ipc(Request(root=scratch() / _ROOT)),
    )


_BANDWIDTH = {"end": {"sum_received": {"bits_per_second": 43.2e9}}}


@parser("report of iperf3", *of_json(_BANDWIDTH), ProbeError)
def _iperf3(text: str) -> object:
    return bandwidth.parse_iperf3(text)


_PERFTEST = " #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n 65536      1000             0.00               98.02              0.186957\n"


@parser("table of ib_write_bw", _PERFTEST, documents(_PERFTEST), ProbeError)
def _perftest(text: str) -> object:
    return bandwidth.parse_perftest(text)


_SYSFS = "4: ACTIVE\n200 Gb/sec (4X HDR)\n0000:0000:0000:0000:0000:ffff:c0a8:640b\nRoCE v2\neth0\n04/14/2026\n9000\n"


@parser("files of sysfs", "9000\n", documents(_SYSFS))
def _sysfs(text: str) -> object:
    port = f"{fabric.RDMA}/rocep1s0f0/ports/1"
    for path in (
        f"{fabric.NET}/eth0/speed",
        f"{port}/state",
        f"{port}/rate",
        f"{port}/gids/0",
        f"{port}/gid_attrs/types/0",
        f"{port}/gid_attrs/ndevs/0",
        fabric.KERNEL,
        fabric.BIOS,
    ):
        held(f"{_ROOT}{path}", text)
    _host(f"{fabric.NET}/eth0/mtu", text)
    return fabric.look(Request(root=scratch() / _ROOT, addresses=lambda: {"eth0": "10.0.0.1"}))


_PYTHON = {"python": "3.12.3", "distributions": {"docker": "7.1.0"}}


@parser("packages of an environment", *of_json(_PYTHON), ProbeError)
def _environment(text: str) -> object:
    held(f"{_ROOT}/opt/sparkfleet/venv/bin/python", "")
    return probes.environment(Request(root=scratch() / _ROOT, run=lambda _argv, _timeout: text))


_RULES = """\
*raw
:PREROUTING ACCEPT [3:180]
:SPARKFLEET - [0:0]
-A PREROUTING -j SPARKFLEET
-A SPARKFLEET -i lo -j RETURN
-A SPARKFLEET -s 2001:db8::10/128 -j RETURN
-A SPARKFLEET -p tcp -m tcp --dport 8000 -m addrtype --dst-type LOCAL -j DROP
COMMIT
"""


@parser("ip6tables-save", _RULES, documents(_RULES))
def _rules(text: str) -> object:
    table = port_guard.read(text)
    wanted = port_guard.rules([8000], guard.sources(["2001:db8::10"])[6])
    return port_guard.transaction(wanted, table), port_guard.transaction((), table)


_PLACE = '"family": "inet", "table": "sparkfleet_unit", "handle": 4'
_TABLE = f"""\
{{"nftables": [{{"metainfo": {{"version": "1.0.9"}}}}, {{"table": {{"family": "inet", "name": "sparkfleet_unit", "handle": 5}}}},
{{"set": {{{_PLACE}, "name": "members_v4", "type": "ipv4_addr", "elem": ["192.0.2.11"]}}}},
{{"chain": {{{_PLACE}, "name": "input", "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}}}},
{{"rule": {{{_PLACE}, "chain": "input", "expr": [{{"match": {{"op": "in", "left": {{"ct": {{"key": "state"}}}}, "right": ["related"]}}}},
{{"accept": null}}]}}}},
{{"rule": {{{_PLACE}, "chain": "input", "expr": [{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}},
"right": {{"set": [8622, {{"range": [32768, 60999]}}]}}}}}}, {{"drop": null}}]}}}}]}}
"""


@parser("nft -j list table", _TABLE, documents(_TABLE), unit_guard.TableError)
def _unit_rules(text: str) -> object:
    return unit_guard.there(text), unit_guard.transaction(unit_guard.read(text))


_HAPROXY = "#<PID> <type> <reloads>\n1162 master 5 [failed: 0]\n# workers\n1271 worker 1\n# old workers\n1233 worker 3\n"
_SERVERS = "1\n# be_id be_name srv_id srv_name\n3 chat 7 spark-1 192.0.2.1 2 8 1 1 60 15 0 4 7 0 0 1 - 8000 - 0 0 - - 0\n"
_STATISTICS = '# pxname,svname,qcur,scur,status,check_desc\nchat,spark-1,0,2,UP 1/3,"Layer7 check, passed"\n'


@parser("HAProxy: show proc", _HAPROXY, documents(_HAPROXY), haproxy_answers.HaproxyError)
def _haproxy_processes(text: str) -> object:
    return [process.pid for process in haproxy_answers.parse_processes(text)]


@parser("HAProxy: show servers state", _SERVERS, documents(_SERVERS), haproxy_answers.HaproxyError)
def _haproxy_states(text: str) -> object:
    return [(server.key, server.usable) for server in haproxy_answers.parse_states(text)]


@parser("HAProxy: show stat", _STATISTICS, documents(_STATISTICS), haproxy_answers.HaproxyError)
def _haproxy_statistics(text: str) -> object:
    rows = haproxy_answers.parse_statistics(text)
    server = haproxy_answers.Server("chat", "spark-1", haproxy_answers.READY)
    return [server.seen(row, row.sessions).usable for row in rows.values()]


_PASSED = {
    "version": 1,
    "last_good": None,
    "current": {
        "gate": {},
        "serving": {
            "recipe": "r",
            "container": {"image": "i", "published_ports": ["192.0.2.1:8000:8000"]},
            "models": {},
            "files": [],
            "gate": {"served_model": "chat", "base_url": "http://127.0.0.1:8000"},
        },
    },
}


@parser("state.json of a Spark, for a gateway", *of_json(_PASSED), GatewayError)
def _passed(text: str) -> object:
    content = base64.b64encode(text.encode(errors="surrogatepass")).decode()
    return gateway_fleet.servers({"spark-1": (content, "192.0.2.1", 8621)})


_FORMER = [{"name": "spark-1", "model": "chat", "recipe": "r", "address": "192.0.2.1", "port": 8000}]


@parser("servers.json of a gateway", *of_json(_FORMER), GatewayError)
def _former_servers(text: str) -> object:
    content = base64.b64encode(text.encode(errors="surrogatepass")).decode()
    known = gateway_fleet.servers({"spark-1": (None, "192.0.2.1", None)}, content)
    return len(gateway_pools.pools(known)) if known else 0


_GATE = {
    "version": 1,
    "at": 1.5,
    "verdict": "pass",
    "diagnosis": "ok",
    "recipe": "r",
    "acceptance_floor": 0.4,
    "acceptance_rate": 0.69,
    "drafts": 300,
    "tokens_per_second": None,
    "passed_at": 1.5,
}


@parser("gate.json of a Spark", *of_json(_GATE), ValueError, state.json_text.JsonError)
def _gate_verdict(text: str) -> object:
    said = gate_verdict.parse(text)
    return series_text.text(series_spark.of_gate(said), series_spark.HELPS)


@parser("state.json of a Spark, for its series", *of_json(_PASSED), ValueError, state.json_text.JsonError)
def _state_series(text: str) -> object:
    return series_text.text(series_spark.of_state(serve_state.parse(text)), series_spark.HELPS)


_LOOKED: dict[str, Any] = {
    "version": 1,
    "looked_at": 1.5,
    "mode": "act",
    "verdict": "bad",
    "reason": "wedged",
    "findings": [
        {"kind": "wedged", "severity": "act", "since": 1.0, "expected": "a", "seen": "b", "do": "c"}
    ],
    "speculation": {"drafts": 300, "acceptance_rate": 0.5},
    "restarts": [1.0],
    "agent": "down",
}


@parser("verdict.json of the watchdog", *of_json(_LOOKED), ValueError, state.json_text.JsonError)
def _watchdog_series(text: str) -> object:
    return series_text.text(series_spark.of_watchdog(serve_watched.parse(text), 2.0), series_spark.HELPS)


_GPU = "0, 96, 71, [N/A], 2418\n"


@parser("nvidia-smi, for its series", _GPU, documents(_GPU))
def _gpu_series(text: str) -> object:
    found = [sample for fields in series_gpu.QUERIES for sample in series_gpu.parse(text, fields)]
    return series_text.text(found, series_gpu.HELPS)


_TARGETS = [{"targets": ["192.0.2.1:8000"], "labels": {"host": "spark-1", "spark": "spark-1"}}]


@parser("targets of a Prometheus", *of_json(_TARGETS))
def _targets(text: str) -> object:
    former = base64.b64encode(text.encode(errors="surrogatepass")).decode()
    given = monitoring.inputs(former=former)
    return monitoring_plan.plan(given, {"spark-1": (None, "192.0.2.1")}).as_data()


# -- the members of a unit

_PAIR = wire.Identity(b"k" * 32, "pair", 2)
_BOUNDS = machine.Rules(nodes=2, restarts=4, start_within=60, pause=0, stop_within=20)
_PHASE = {"phase": "running", "generation": "0123456789abcdef", "age": 0.5}
_FROM_HEAD = {**_PHASE, "run": "0123456789abcdef", "restarts": 1, "why": "a", "members": {"1": _PHASE}}
_FROM_WORKER = {**_PHASE, "ended": "", "asked": False, "why": "a"}
_UNIT_STATUS = {
    **_PHASE,
    "version": 1,
    "unit": "pair",
    "rank": 1,
    "nodes": 2,
    "since": 1.0,
    "at": 2.0,
    "restarts": 1,
    "why": "a",
    "members": {"0": _PHASE},
}
_HELLO = next(wire.greet(_PAIR, 1)).decode().strip()


@parser("word of a head", *of_bytes(_FROM_HEAD), words.WordError)
def _from_head(line: bytes) -> object:
    worker = machine.Worker(1, _BOUNDS, 0.0)
    worker.heard(0, words.read_head(line), 1.0)
    return worker.members(2.0), words.read_worker(words.encoded(worker.says(2.0)))


@parser("word of a worker", *of_bytes(_FROM_WORKER), words.WordError)
def _from_worker(line: bytes) -> object:
    head = machine.Head(_BOUNDS, 0.0)
    head.heard(1, words.read_worker(line), 1.0)
    head.tick(1.0)
    return head.members(2.0), words.read_head(words.encoded(head.says(2.0)))


@parser("greeting of a member", _HELLO, texts(_HELLO), wire.WireError)
def _greeting(text: str) -> object:
    head, worker, line = wire.welcome(_PAIR), wire.greet(_PAIR, 1), text.encode(errors="replace")
    next(head), next(worker)
    with contextlib.suppress(wire.WireError):
        worker.send(line)
    with contextlib.suppress(wire.WireError):
        wire.Session(b"a", b"b").open(line)
    return head.send(line)


@parser("key of a unit", "ab" * 32, texts("ab" * 32), wire.WireError)
def _unit_key(text: str) -> object:
    return wire.read_key(text)


@parser("status.json of a supervisor", *of_json(_UNIT_STATUS), ValueError, json_text.JsonError)
def _unit_status(text: str) -> object:
    folder = held("unit/status.json", text).parent
    json.dumps(unit_status.judged(*unit_status.read(folder), 3.0), allow_nan=False)
    return unit_status.parse(text)


# -- the status of a fleet

_MATRIX = {
    "status": "success",
    "data": {
        "resultType": "matrix",
        "result": [{"metric": {"spark": "a"}, "values": [[1_796_000_000, "1.5"], [1_796_000_600, "NaN"]]}],
    },
}
_FIRING = {
    "status": "success",
    "data": {
        "resultType": "vector",
        "result": [{"metric": {"alertname": "A", "spark": "a"}, "value": [1, "1"]}],
    },
}


@parser("series of Prometheus", *of_bytes(_MATRIX), day.DayError)
def _series(body: bytes) -> object:
    found = day.of_series(body, 1_796_000_000, {"a"})
    return json.dumps(found, allow_nan=False)


@parser("alerts of Prometheus", *of_bytes(_FIRING), day.DayError)
def _firing(body: bytes) -> object:
    return day.of_alerts(body)


_WATCHED = {
    **status.WATCHDOG,
    "version": 1,
    "agent": "up",
    "findings": [status.finding("wedged")],
    "restarts": [1.0],
}


@parser("verdict.json, shown", *of_json(_WATCHED), ValueError, json_text.JsonError)
def _watched(text: str) -> object:
    seen = status.now(watchdog=None)
    seen["watchdog"] = status_look.watchdog(held("watched/watchdog/verdict.json", text).parents[1])
    return status_report.judge(seen), list(status_report.changes(seen))


@parser("gate.json, shown", *of_json(status.GATE), ValueError, json_text.JsonError)
def _gated(text: str) -> object:
    seen = status.now(gate=status_look.gate(held("gated/gate.json", text).parent))
    return status_report.judge(seen), status_report.gate(seen["gate"])


@parser("state.json, shown", *of_json(_STATE), ValueError, json_text.JsonError)
def _recorded(text: str) -> object:
    seen = status.now(record=None)
    seen["record"] = status_look.record(held("recorded/state.json", text).parent)
    return status_report.judge(seen), list(status_report.changes(seen))
