# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM's log read for a person. The lines are vLLM 0.32's own, from starts that succeeded and starts that did not."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._gate.container import LONGEST_LINE
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.log import (
    ASKED_TO_STOP,
    Speculation,
    Transport,
    death_reason,
    phase,
    shows_progress,
    speculation,
    tail,
    transport,
)
from helpers.bounded import ends

API = "(APIServer pid=1) INFO 11-23 21:16:05 [model.py:733] "
CORE = "(EngineCore pid=272) INFO 11-23 21:16:21 [core.py:133] "
ERROR = "(EngineCore pid=272) ERROR 11-23 21:16:38 [core.py:1011] "
CONFIG = "Initializing a V1 LLM engine (v0.32.0) with config: model='/models/b', speculative_config={}, tokenizer='b'"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (CORE + CONFIG.format("None"), "version 0.32.0, the engine starts"),
        (
            "(Worker pid=7) INFO 11-23 21:16:29 [m.py:68] Starting to load model /models/b...",
            "loading the body",
        ),
        ("(Worker pid=7) INFO 11-23 21:16:30 [m.py:75] Loading drafter model...", "loading the draft"),
        (
            "Loading safetensors checkpoint shards:  50% Completed | 3/6 [01:50<01:50, 36s/it]",
            "loading weights 3/6",
        ),
        (
            "(Worker pid=7) INFO 11-23 21:16:29 [d.py:501] Loading weights took 230.01 seconds",
            "weights loaded in 230 s",
        ),
        (CORE + "Model loading took 26.12 GiB memory and 231.5 seconds", "model in memory: 26.1 GiB"),
        (
            CORE + "CPU KV cache size: 6,547,206 tokens, Maximum concurrency for",
            "KV cache holds 6,547,206 tokens",
        ),
        (CORE + "GPU KV cache size: 123,456 tokens", "KV cache holds 123,456 tokens"),
        (CORE + "Dynamo bytecode transform time: 9.80 s", "compiling"),
        (CORE + "torch.compile takes 61.20 s in total", "compiled in 61 s"),
        ("Capturing CUDA graphs (decode, FULL):  43%|####  | 3/7 [00:01<00:01]", "capturing CUDA graphs 43%"),
        (
            CORE + "init engine (profile, create kv cache, warmup model) took 140.20 s (compilation: 61.2 s)",
            "engine warmed up in 140 s",
        ),
        (API + "Starting vLLM server on http://0.0.0.0:8000", "API server starts"),
        ("INFO:     Application startup complete.", "API server started"),
        (API + "non-default args: {'port': 8000}", "arguments accepted"),
        (API + "Resolved architecture: Gemma4MTPModel", "configuration of Gemma4MTPModel read"),
        (API + "Using max model len 8192", None),
        ('INFO:     127.0.0.1:34308 - "GET /health HTTP/1.1" 200 OK', None),
    ],
)
def test_phase(line: str, expected: str | None) -> None:
    assert phase(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (API + "Using max model len 8192", True),
        ("Loading safetensors checkpoint shards:  50% Completed | 3/6", True),
        ('INFO:     127.0.0.1:34308 - "GET /health HTTP/1.1" 503 Service Unavailable', False),
        (
            "(APIServer pid=1) INFO 11-23 21:16:35 [x.py:1] Engine 000: Avg prompt throughput: 0.0 tokens/s",
            False,
        ),
        (
            "(APIServer pid=1) DEBUG 11-23 21:16:35 [x.py:1] Waiting for 1 local, 0 remote core engine proc(s)",
            False,
        ),
        ("", False),
    ],
)
def test_progress_is_not_a_clock(line: str, expected: bool) -> None:
    assert shows_progress(line) is expected


ENGINE_DEATH = [
    ERROR + "EngineCore failed.",
    ERROR + "Traceback (most recent call last):",
    ERROR + '  File "/usr/lib/vllm/v1/engine/core.py", line 1011, in run_engine_core',
    ERROR + "    raise RuntimeError(",
    ERROR + "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x64 and 128x64)",
    "(APIServer pid=1) ERROR 11-23 21:16:38 [async_llm.py:906] Traceback (most recent call last):",
    "(APIServer pid=1) ERROR 11-23 21:16:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore "
    "encountered an issue. See stack trace (above) for the root cause.",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    "/usr/lib/python3.12/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked",
]
VALIDATION = [
    "Traceback (most recent call last):",
    "    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)",
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig",
    "num_speculative_tokens",
    "  Input should be greater than 0 [type=greater_than, input_value=0, input_type=int]",
    "    For further information visit https://errors.pydantic.dev/2.14/v/greater_than",
]
USAGE = [
    "usage: vllm serve [model_tag] [options]",
    'vllm serve: error: argument --speculative-config/-sc: Value {"method":"mtp", cannot be converted to <function '
    "loads at 0x7fcfeb261120>.",
]
STOPPED = [
    "(APIServer pid=1) INFO 11-23 21:16:38 [launcher.py:254] [shutdown] API server: shutdown triggered",
    "(APIServer pid=1) ERROR 11-23 21:16:38 [async_llm.py:906] AsyncLLM output_handler failed.",
    "(APIServer pid=1) ERROR 11-23 21:16:38 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore "
    "encountered an issue. See stack trace (above) for the root cause.",
    "INFO:     Application shutdown complete.",
]


ENGINE_FAILED = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
ASSEMBLER = [
    ERROR + "Traceback (most recent call last):",
    ERROR + "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error",
    ERROR + "`ptxas` stderr:",
    ERROR + "ptxas fatal   : Value 'sm_999a' is not defined for option 'gpu-name'",
    ERROR,
    ERROR + "Repro command: ptxas -v --gpu-name=sm_999a k.ptx -o k.o",
    ENGINE_FAILED.format("{'EngineCore': 1}"),
]
NVCC = (
    ERROR
    + "/usr/local/cuda/bin/nvcc -Xcompiler=-Wno-error -gencode=arch=compute_999a,code=sm_999a -c k.cu -o k.o"
)
BUILD = [
    ERROR + "RuntimeError: Ninja build failed. Ninja output:",
    NVCC.replace("] /usr", "] [1/2] /usr"),
    ERROR + "FAILED: [code=1] k.o ",
    NVCC,
    ERROR + "nvcc fatal   : Unsupported gpu architecture 'compute_999a'",
    ERROR + "ninja: build stopped: subcommand failed.",
    ENGINE_FAILED.format("{'EngineCore': 1}"),
]
TERMINATED = [
    "(EngineCore_DP0 pid=79) terminate called after throwing an instance of 'c10::AcceleratorError'",
    "(EngineCore_DP0 pid=79)   what():  CUDA error: an illegal memory access was encountered",
    "Aborted (core dumped)",
]
SEGFAULT = [
    CORE + "Starting to load model /models/b...",
    "free(): invalid pointer",
    "!!!!!!! Segfault encountered !!!!!!!",
    "(APIServer pid=1) Traceback (most recent call last):",
    ENGINE_FAILED.format("{'EngineCore_DP0': -11}"),
]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (ENGINE_DEATH, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x64 and 128x64)"),
        (
            VALIDATION,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig "
            "num_speculative_tokens Input should be greater than 0",
        ),
        (
            USAGE,
            'argument --speculative-config/-sc: Value {"method":"mtp", cannot be converted to <function loads at '
            "0x7fcfeb261120>.",
        ),
        (["vllm: error: unrecognized arguments: --frobnicate 3"], "unrecognized arguments: --frobnicate 3"),
        (["my-vllm.sh: error: unrecognized arguments: -f"], "unrecognized arguments: -f"),
        (["api_server.py: error: unrecognized arguments: -f"], "unrecognized arguments: -f"),
        (["python3 -m vllm.entrypoints.x: error: unrecognized arguments: -f"], "unrecognized arguments: -f"),
        (["exec /usr/bin/vllm: exec format error"], "exec /usr/bin/vllm: exec format error"),
        (
            ASSEMBLER,
            "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error "
            "(ptxas fatal   : Value 'sm_999a' is not defined for option 'gpu-name')",
        ),
        (
            BUILD,
            "RuntimeError: Ninja build failed. Ninja output: "
            "(nvcc fatal   : Unsupported gpu architecture 'compute_999a')",
        ),
        (
            [*BUILD[:4], ERROR + "k.cu(23): error: no such name", *BUILD[5:]],
            "RuntimeError: Ninja build failed. Ninja output: (k.cu(23): error: no such name)",
        ),
        (
            [*BUILD[:4], *BUILD[5:]],
            "RuntimeError: Ninja build failed. Ninja output: (FAILED: [code=1] k.o)",
        ),
        (SEGFAULT, "EngineCore_DP0 was ended by signal 11 (SIGSEGV): free(): invalid pointer"),
        (
            [*TERMINATED, ENGINE_FAILED.format("{'EngineCore_DP0': -6}")],
            "EngineCore_DP0 was ended by signal 6 (SIGABRT): CUDA error: an illegal memory access was encountered",
        ),
        (TERMINATED, "CUDA error: an illegal memory access was encountered"),
        (TERMINATED[:1], "terminate called after throwing an instance of 'c10::AcceleratorError'"),
        ([ENGINE_FAILED.format("{'EngineCore_DP0': -9}")], "EngineCore_DP0 was ended by signal 9 (SIGKILL)"),
        ([ENGINE_FAILED.format("{'a': 1, 'b': -99}")], "b was ended by signal 99 (unknown)"),
        ([ENGINE_FAILED.format("{'EngineCore_DP0': 1}")], None),
        ([ERROR + "ValueError: no", *SEGFAULT], "ValueError: no"),
        ([API + "Starting vLLM server", "Bus error (core dumped)"], "Bus error (core dumped)"),
        (
            ["INFO:     Started server process [1]", "ERROR:    [Errno 98] bind: address already in use"],
            "[Errno 98] bind: address already in use",
        ),
        (
            [
                "(EngineCore pid=1) (RayWorkerWrapper pid=400, ip=192.0.2.2) "
                + ERROR.partition(") ")[2]
                + "torch.OutOfMemoryError: no"
            ],
            "torch.OutOfMemoryError: no",
        ),
        ([ERROR + "No available memory for the cache blocks."], "No available memory for the cache blocks."),
        (
            [
                ERROR + "    assert self.data.shape == loaded_weight.shape",
                ERROR + "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
                ERROR + "AssertionError",
            ],
            "AssertionError: assert self.data.shape == loaded_weight.shape",
        ),
        (STOPPED, ASKED_TO_STOP),
        ([API + "Using max model len 8192"], None),
        ([], None),
    ],
)
def test_reason_of_a_death(lines: list[str], expected: str | None) -> None:
    assert death_reason(lines) == expected


def test_a_reason_is_cut_not_dumped() -> None:
    reason = death_reason(["ValueError: " + "x" * 5000])
    assert reason is not None
    assert len(reason) < 600


GOOD = [
    API + "Resolved architecture: Gemma4ForCausalLM",
    API + "Resolved architecture: Gemma4MTPModel",
    CORE + CONFIG.format("SpeculativeConfig(method='mtp', model='/models/d', num_spec_tokens=1)"),
]


def test_speculation_of_a_good_start() -> None:
    assert speculation(GOOD) == Speculation(True, "mtp", 1, ("Gemma4ForCausalLM", "Gemma4MTPModel"), ())


def test_speculation_of_bad_starts() -> None:
    assert speculation([CORE + CONFIG.format("None")]) == Speculation(configured=False)
    assert speculation([]) == Speculation()
    fallen_back = [
        CORE + CONFIG.format("SpeculativeConfig(method='draft_model', model='/models/d', num_spec_tokens=1)"),
        CORE + "The draft has other embeddings. Keeping separate embedding weights from the target model.",
        CORE + "No target layer of type 'full_attention' for draft layer 3",
    ]
    found = speculation(fallen_back)
    assert found.method == "draft_model"
    assert found.warnings == (
        "method='draft_model'",
        "The draft has other embeddings. Keeping separate embedding weights from the target model.",
        "No target layer of type 'full_attention' for draft layer 3",
    )


def test_tail_leaves_out_health_checks_and_cuts_width() -> None:
    lines = ["a", 'INFO: 127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK', "", "b" * 400]
    assert tail(lines) == ["a", "b" * 300 + " …"]
    assert tail([str(number) for number in range(30)], count=3) == ["27", "28", "29"]


def test_tail_ends_with_the_reason() -> None:
    assert tail(ENGINE_DEATH, death_reason(ENGINE_DEATH), count=2) == ENGINE_DEATH[3:5]
    assert tail(["a", "b"], "not in the log") == ["a", "b"]
    bare = [
        ERROR + "    assert whole",
        ERROR + "           ^^^^^",
        ERROR + "AssertionError",
        "RuntimeError: See root cause above.",
    ]
    assert tail(bare, death_reason(bare)) == bare[:1]
    assert tail(VALIDATION, death_reason(VALIDATION)) == VALIDATION


@pytest.mark.parametrize(
    ("lines", "networks", "nccl"),
    [
        (
            [
                "(Worker_TP0 pid=71) INFO 12-01 10:00:01 [pynccl.py:111] vLLM is using nccl==2.28.9",
                "(Worker_TP0 pid=71) spark-1:71:71 [0] NCCL INFO NET/IB : Using [0]rocep1s0f0:1/RoCE [1]roceP2p1s0f0:1/RoCE [RO]; OOB enp1s0f0np0:192.168.100.11<0>",
                "spark-1:71:90 [0] NCCL INFO Using network IB",
                "spark-1:71:90 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via NET/IB/0",
                "spark-1:71:90 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[0] via P2P/IPC",
            ],
            ("IB",),
            "2.28.9",
        ),
        (
            [
                "spark-1:71:71 [0] NCCL INFO NCCL version 2.27.3+cuda13.0",
                "spark-1:71:71 [0] NCCL INFO NET/IB : No device found.",
                "spark-1:71:71 [0] NCCL INFO NET/Socket : Using [0]enp1s0f0np0:192.168.100.11<0>",
                "spark-1:71:90 [0] NCCL INFO Assigned NET plugin Socket to comm",
            ],
            ("Socket",),
            "2.27.3",
        ),
        (["spark-1:71:71 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>"], ("Socket",), None),
        (
            [
                "spark-1:71:71 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>",
                "spark-1:71:90 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [receive] via NET/IB/1/GDRDMA",
            ],
            ("IB",),
            None,
        ),
        (
            [
                "(Worker pid=9) INFO 12-01 10:00:01 [parallel_state.py:1400] world_size=2 rank=1 local_rank=0 "
                "distributed_init_method=tcp://10.0.0.1:29501 backend=gloo",
            ],
            ("gloo",),
            None,
        ),
        (
            [
                "INFO 12-01 10:00:01 [parallel_state.py:1400] world_size=1 rank=0 local_rank=0 distributed_init_method=tcp://10.0.0.1:1 backend=gloo",
                'INFO 12-01 10:00:01 [x.py:1] a prompt about "via NET/Socket" and NET/Socket : Using [0]',
            ],
            (),
            None,
        ),
    ],
)
def test_the_network_between_ranks(lines: list[str], networks: tuple[str, ...], nccl: str | None) -> None:
    assert transport(lines) == Transport(networks, nccl)


def test_a_log_that_names_networks_without_end_names_few() -> None:
    assert len(transport(f"NCCL INFO Using network N{number}" for number in range(999)).networks) == 8


HOSTILE = [
    "NCCL INFO ",
    "NCCL INFO via NET/",
    "NCCL INFO NET/a",
    "world_size=2 rank=1 local_rank=0 distributed_init_method=",
    "Capturing CUDA graph",
    "Capturing CUDA graphs1",
    "init engine  took 1",
    "speculative_config=SpeculativeConfig(",
    "Loading safetensors checkpoint shards: 1",
    "Loading weights took 1.",
    "Engine 1",
    '"GET /',
    "(a pid=1",
    "(a pid=1, ip=1:",
    "(a pid=1, ip=1) ",
    "Failed core proc(s): {'a': -",
    "AError: stderr",
    "ERROR: ",
    "fatal",
    "Killed",
    "what(): ",
    "INFO 11-23 21:16:05 [a:1",
    "\x1b[1;",
    "a.A.Error",
    "AError:",
    "x: error",
    "vllm",
    "vllm: error",
    "a.py",
    "python -m ",
    "x ",
    "exec x",
    " ",
    "1",
    ".",
]
"""What the patterns begin with. Again and again, and then what may repeat in them, is the slowest that they can be given."""

READ = """
import sys
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import log
lines = [sys.stdin.read() + filler * HALF for filler in "1 .:a(="]
for text in [begin + line for line in lines for begin in ("", "Loading weights took ", "init engine ", "INFO 11-23 21:16:05 [a.py:1] ")]:
    log.phase(text), log.shows_progress(text), log.speculation([text] * 3)
    log.transport([text] * 3)
    log.tail([text] * 3, log.death_reason([text] * 3))
"""


@pytest.mark.parametrize("part", HOSTILE)
def test_no_line_hangs_the_gate(part: str) -> None:
    half = LONGEST_LINE // 2
    assert ends(f"HALF = {half}\n{READ}", part * (half // len(part))) == ""


@pytest.mark.parametrize("number", ["...", "1.2.3", ".", "1" * 400])
def test_what_looks_like_a_number_is_none(number: str) -> None:
    for line in (
        "Loading weights took {} s",
        "Model loading took {} GiB",
        "torch.compile takes {} s",
        "init engine x took {} s",
    ):
        phase(line.format(number))
