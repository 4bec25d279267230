# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options `vllm serve` knows, so that a misspelled one is found in a second and not after a start.

The names are those that the argument parser of one release reports. Another release may know more or fewer, so this list refuses no
name: it says which known one is near. The vLLM in the image says what it takes, before anything is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._common.spelling import nearest

RELEASE = "0.33.0"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A switch takes true (--name) or false (--no-name) and nothing else.
SWITCHES = _words(
    """
    aggregate-engine-logging allow-credentials allow-deprecated-quantization async-scheduling
    cohere-is-reasoning-model cudagraph-metrics data-parallel-external-lb data-parallel-hybrid-lb
    data-parallel-multi-port-external-lb dcp-q-replicate disable-cascade-attn disable-chunked-mm-input
    disable-custom-all-reduce disable-fastapi-docs disable-hybrid-kv-cache-manager disable-log-stats
    disable-nccl-for-dp-synchronization disable-sliding-window disable-uvicorn-access-log
    enable-auto-tool-choice enable-batch-sharded-sampling enable-chunked-prefill enable-cumem-allocator
    enable-dbo enable-elastic-ep enable-ep-weight-filter enable-eplb enable-expert-parallel
    enable-fault-tolerance enable-flash-late-interaction enable-flashinfer-autotune
    enable-force-include-usage enable-hc-sp enable-layerwise-nvtx-tracing enable-log-deltas
    enable-log-outputs enable-log-requests enable-logging-iteration-details enable-lora
    enable-mamba-cache-stochastic-rounding enable-mamba-shared-prefix-checkpoint enable-mfu-metrics
    enable-mixed-moe-lora-format enable-mm-embeds enable-moe-shared-loras enable-nccl-comm-suspend
    enable-offline-docs enable-per-request-metrics enable-prefix-caching enable-prompt-embeds
    enable-prompt-tokens-details enable-request-id-headers enable-return-routed-experts enable-scale-out
    enable-server-load-tracking enable-shm-tensor-arena enable-sleep-mode enable-ssl-refresh
    enable-tokenizer-info-endpoint enable-tower-connector-lora enable-trace-replay enforce-eager
    exclude-tools-when-tool-choice-none fail-on-environ-validation fully-sharded-loras grpc headless
    interleave-mm-strings jit-monitor-verbose kv-cache-metrics kv-sharing-fast-prefill
    language-model-only log-error-stack long-prefill-token-threshold-adaptive mm-device-do-normalize
    mm-encoder-only monokernel numa-bind ray-workers-use-nsight return-sampling-mask
    return-tokens-as-token-ids scheduler-reserve-full-isl skip-mm-profiling skip-tokenizer-init
    sleep-mode-offload-cudagraph specialize-active-lora swa-bounded-replay tokens-only trust-remote-code
    trust-request-chat-template trust-request-mm-kwargs use-fp64-gumbel use-replayssm use-tqdm-on-load
    """
)
# Every other option: text, a number, a list or a mapping, as it wants it; never a boolean.
VALUES = _words(
    """
    additional-config all2all-backend allowed-headers allowed-local-media-path allowed-media-domains
    allowed-methods allowed-origins anthropic-disabled-thinking-effort api-server-count
    attention-backend attention-config aux-output-config block-size chat-template
    chat-template-content-format code-revision cohere-format collect-detailed-traces compilation-config
    config-format convert cp-kv-cache-interleave-size cpu-distributed-timeout-seconds cpu-offload-gb
    cpu-offload-params cudagraph-capture-sizes custom-histogram-buckets data-parallel-address
    data-parallel-backend data-parallel-rank data-parallel-rpc-port data-parallel-size
    data-parallel-size-local data-parallel-start-rank data-parallel-supervisor-port
    dbo-decode-token-threshold dbo-prefill-token-threshold dcp-comm-backend dcp-kv-cache-interleave-size
    decode-context-parallel-size default-chat-template-kwargs default-mm-loras device-ids
    device-memory-utilization diffusion-config disable-access-log-for-endpoints
    distributed-executor-backend distributed-timeout-seconds download-dir
    dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
    dp-sync-interval dtype ec-manager-config ec-transfer-config elastic-ep-max-dp-size engram-config
    eplb-config expert-placement-strategy fault-tolerance-config fingerprint-mode fingerprint-value
    gdn-prefill-backend generation-config gpu-memory-utilization grpc-port h11-max-header-count
    h11-max-incomplete-event-size hf-config-path hf-overrides host ignore-patterns io-processor-plugin
    ir-op-priority jit-monitor-mode kda-decode-backend kda-prefill-backend kernel-config kv-cache-dtype
    kv-cache-dtype-skip-layers kv-cache-memory-bytes kv-cache-metrics-sample kv-events-config
    kv-offloading-backend kv-offloading-size kv-transfer-config limit-mm-per-prompt linear-backend
    load-format log-config-file log-level logging-config logits-processors logprobs-mode
    long-prefill-token-threshold lora-dtype lora-modules lora-target-modules mamba-backend
    mamba-block-size mamba-cache-dtype mamba-cache-mode mamba-cache-philox-rounds mamba-ssm-cache-dtype
    mamba-ssu-algorithm master-addr master-port max-cpu-loras max-cudagraph-capture-size max-log-len
    max-logprobs max-lora-cls-labels max-lora-rank max-loras max-model-len max-num-active-seqs
    max-num-batched-tokens max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens
    max-num-seqs max-parallel-loading-workers media-io-kwargs middleware mm-encoder-attn-backend
    mm-encoder-attn-dtype mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-margin
    mm-encoder-fp8-scale-save-path mm-encoder-tp-mode mm-hasher-algorithm mm-ipc-gpu-memory-gb
    mm-processor-cache-gb mm-processor-cache-type mm-processor-device mm-processor-kwargs
    mm-shm-cache-max-object-size-mb mm-tensor-ipc model-class-overrides model-impl
    model-loader-extra-config moe-backend nnodes node-rank num-gpu-blocks-override numa-bind-cpus
    numa-bind-nodes offload-backend offload-group-size offload-num-in-group offload-params
    offload-prefetch-step optimization-level otlp-traces-endpoint override-generation-config
    per-request-spec-decode-metrics performance-mode pipeline-parallel-size pooler-config
    prefill-context-parallel-size prefill-schedule-interval prefix-cache-retention-interval
    prefix-caching-hash-algo prefix-match-unit profiler-config pt-load-map-location quantization
    quantization-config reasoning-config reasoning-effort-map reasoning-parser reasoning-parser-plugin
    renderer-num-workers replayssm-buffer-len response-role revision root-path runner
    safetensors-load-strategy safetensors-prefetch-block-size safetensors-prefetch-num-threads
    scheduler-cls scheduling-policy seed served-model-name show-hidden-metrics-for-version
    shutdown-timeout sleep-mode-backend sleep-preserve-parameter-names sparse-indexer-topk-backend
    spec-method spec-model spec-tokens speculative-config sse-keep-alive-interval ssl-ca-certs
    ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile stream-interval structured-outputs-config
    tensor-parallel-size tokenizer tokenizer-mode tokenizer-revision tool-call-parser tool-parser-plugin
    tool-server tool-strict-level ubatch-size uds uvicorn-log-level video-pruning-method
    video-pruning-rate watchdog-config watermark watermark-config weight-transfer-config worker-cls
    worker-extension-cls
    """
)
NAMES = SWITCHES | VALUES

# Options that this collection reads itself: for the room on the host, and for the gate.
READ_HERE = {"gpu-memory-utilization": "number", "speculative-config": "mapping"}

# The keys of --speculative-config that a caller may set (SpeculativeConfig of the same release).
SPECULATIVE = _words(
    """
    attention_backend code_revision disable_eagle_block_drop disable_lookahead_block_hashes
    disable_padded_drafter_batch draft_lm_head_quantization draft_load_config draft_sample_method
    draft_tensor_parallel_size dspark_draft_topk enable_adaptive_verification enforce_eager
    fly_entropy_threshold fly_entropy_top_k fly_window_size index_share_for_mtp_iteration kv_cache_dtype
    max_model_len method model moe_backend num_speculative_tokens num_speculative_tokens_per_batch_size
    parallel_drafting prompt_lookup_max prompt_lookup_min quantization rejection_sample_method revision
    suffix_decoding_max_cached_requests suffix_decoding_max_spec_factor suffix_decoding_max_tree_depth
    suffix_decoding_min_token_prob synthetic_acceptance_length synthetic_acceptance_rates
    tensor_parallel_size use_heterogeneous_vocab use_local_argmax_reduction xpress_topc
    """
)

# Methods that propose tokens without a separate model: from the text so far, or by layers of the body (any other method that ends in
# mtp is another name of mtp). dspark has its layers in the body or in a draft.
_BY_ITSELF = _words("dspark mtp ngram ngram_gpu suffix")


def drafts_by_itself(method: str) -> bool:
    """Whether a speculative method can do without a draft model."""
    return method in _BY_ITSELF or method.endswith("_mtp")


_OF_A_UNIT = "topology of the recipe and spark_unit of the inventory give it"
_SPREAD = "the gateway spreads requests over Sparks better, and each of them fails and comes back alone"

# Options a recipe does not carry, and where the value belongs instead.
ELSEWHERE = {
    "model": "the path is models.body.mount",
    "port": "write serve.port",
    "spec-method": "write speculative-config: {method: …}",
    "spec-model": "write speculative-config: {model: …}",
    "spec-tokens": "write speculative-config: {num_speculative_tokens: …}",
    "config": "write the arguments into serve.arguments",
    "api-key": "a recipe is public; set vllm_serve_api_key in the inventory, from a vault",
    "hf-token": "a recipe is public; set spark_hub_token in the inventory, from a vault",
    # With these, nothing answers where this collection asks: plain HTTP at the server's port.
    "uds": "the server is asked over HTTP, at serve.port",
    "grpc": "the server is asked over HTTP, at serve.port",
    "grpc-port": "the server is asked over HTTP, at serve.port",
    **dict.fromkeys(
        [
            "tensor-parallel-size",
            "pipeline-parallel-size",
            "nnodes",
            "node-rank",
            "headless",
            "master-addr",
            "master-port",
        ],
        _OF_A_UNIT,
    ),
    **{name: _SPREAD for name in sorted(NAMES) if name.startswith("data-parallel-")},
    **dict.fromkeys(
        ["ssl-ca-certs", "ssl-cert-reqs", "ssl-certfile", "ssl-ciphers", "ssl-keyfile", "enable-ssl-refresh"],
        "the server is asked over plain HTTP; put TLS in front of it",
    ),
}

# The forms in which vLLM takes a list, for options that do not take several words.
JSON_LISTS = _words("allowed-headers allowed-methods allowed-origins")
REPEATED = _words("middleware")
COMMA_LISTS = _words("disable-access-log-for-endpoints")

# Options that must not pass under another name: this collection sets some, and reads the others.
OWN = ELSEWHERE.keys() | READ_HERE.keys() | {"host", "served-model-name"}

# Not a set: a recipe may hold a list there, which has no hash.
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (of the container)


def elsewhere(name: str, value: Any) -> str | None:
    """Why a recipe does not carry the option, or not with this value; None where it may."""
    if name == "host" and value not in _EVERY_ADDRESS:
        return "vLLM listens on every address of its container (0.0.0.0); vllm_serve_bind says on which one of the host"
    # vLLM's serve command: without API servers it is headless.
    if name == "api-server-count" and str(value) == "0":
        return "a server without an API cannot be asked whether it serves"
    return ELSEWHERE.get(name)


IMAGE_DECIDES = "; the vLLM of the image decides, before anything that serves is stopped"
"""Added to the message where the image is asked."""


def unknown_options(arguments: Iterable[str]) -> dict[str, str]:
    """The options that the list does not know, each with its message."""
    return _unknown(arguments, NAMES | ELSEWHERE.keys(), "option")


def unknown_speculation(config: Iterable[str]) -> dict[str, str]:
    """The keys of a speculative config that the list does not know, each with its message."""
    return _unknown(config, SPECULATIVE, "key of the speculative config")


def _unknown(given: Iterable[str], known: frozenset[str], what: str) -> dict[str, str]:
    told = {}
    for name in given:
        if name not in known:
            near = nearest(name, known - set(given))
            told[name] = f"vLLM {RELEASE} has no such {what}" + (f"; nearest: {near}" if near else "")
    return told
