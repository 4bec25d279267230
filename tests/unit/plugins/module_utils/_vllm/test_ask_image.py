"""vLLM's verdict: the probe against a package that plays vLLM, and what its answer means."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm import ask_image

# What the probe needs of vLLM: the two names, and a command that makes its configuration on its way to an engine.
PARSER = """
    import argparse, sys
    from vllm.engine.arg_utils import EngineArgs
    def main():
        parser = argparse.ArgumentParser("vllm serve")
        parser.add_argument("command"), parser.add_argument("model"), parser.add_argument("--seed", type=int)
        EngineArgs().seed = parser.parse_args().seed
        {before}
        EngineArgs().create_engine_config(usage_context="server")
        print("an engine was started")
"""
CONFIG = """
    class EngineArgs:
        def create_engine_config(self, usage_context=None):
            {config}
"""


@pytest.fixture
def ask(tmp_path):
    """Run the probe in a fresh interpreter whose vllm does `before` in its command and `config` in its configuration."""

    def run(
        command=("/models/body",),
        config="return 'a configuration'",
        before="pass",
        limit=60,
        files=True,
        program="",
    ):
        if files:
            for path, text in {
                "vllm/__init__.py": "",
                "vllm/engine/__init__.py": "",
                "vllm/engine/arg_utils.py": CONFIG.format(config=config),
                "vllm/entrypoints/__init__.py": "",
                "vllm/entrypoints/cli/__init__.py": "",
                "vllm/entrypoints/cli/main.py": PARSER.format(before=before),
                "vllm-0.20.2rc1.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.2rc1\n",
            }.items():
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(textwrap.dedent(text))
        ran = subprocess.run(
            [sys.executable, "-c", ask_image.PROBE, ask_image.request(command, limit, program)],
            env={"PYTHONPATH": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return ask_image.judge((ran.stdout + ran.stderr).splitlines(), ran.returncode)

    return run


def test_accepted_means_that_vllm_made_its_configuration(ask):
    verdict = ask()
    assert (verdict.asked, verdict.accepted, verdict.reason) == (True, True, "")
    assert verdict.version == "0.20.2rc1"
    assert verdict.peak_bytes and verdict.peak_bytes > 1_000_000


def test_a_program_that_is_not_there_is_told_before_vllm_is_asked(ask, tmp_path):
    program = tmp_path / "vllm-start"
    for name in (program.name, str(program)):
        program.unlink(missing_ok=True)
        verdict = ask(program=name)
        assert (verdict.absent, verdict.accepted) == (True, False)
        program.touch(0o755)
        assert ask(program=name).accepted


def test_nothing_comes_after_the_configuration(ask):
    assert ask(config="import os; os.environ['MADE'] = '1'").accepted
    # The same without a configuration to leave at: the command would go on to an engine.
    verdict = ask(before="return")
    assert not verdict.asked
    assert "ended without a configuration" in verdict.reason


def test_the_command_is_vllms_own(ask):
    verdict = ask(command=["/models/body", "--seed", "x"])
    assert verdict.asked and not verdict.accepted
    assert verdict.reason == "argument --seed: invalid int value: 'x'"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--kv-cache-dtyp", "fp8"], "unrecognized arguments: --kv-cache-dtyp fp8"),
        (["--seed", "2.5"], "argument --seed: invalid int value: '2.5'"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
    ids=["a name it does not know", "a value of another kind", "a switch that is none"],
)
def test_what_is_not_judged_here_vllm_refuses_in_its_own_words(ask, option, said):
    verdict = ask(command=["/models/body", *option])
    assert verdict.asked and not verdict.accepted
    assert verdict.reason == said
    assert f"seen: {said}; correct them" in ask_image.refusal("an image", verdict)


@pytest.mark.parametrize(
    "statement",
    [
        "raise ValueError('no such draft')",
        "raise TypeError('no such draft')",
        "raise KeyError('no such draft')",
        "raise NotImplementedError('no such draft')",
        "assert 0, 'no such draft'",
        "raise OSError('no such draft')",
        "open('/no such draft')",
    ],
)
def test_what_vllm_raises_of_values_is_a_refusal_with_its_reason(ask, statement):
    for where in ("config", "before"):
        verdict = ask(**{where: statement})
        assert verdict.asked and not verdict.accepted, where
        assert "no such draft" in verdict.reason


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("raise RuntimeError('Failed to infer device type')", "device type"),
        ("raise MemoryError('none left')", "none left"),
        ("raise ImportError('libcuda.so.1')", "libcuda"),
        ("raise OSError(30, 'Read-only file system')", "Read-only"),
        ("raise PermissionError(13, 'not yours')", "not yours"),
        ("raise OSError(99, 'Cannot assign requested address')", "address"),
        ("sys.exit(1)", "exit code"),
    ],
)
def test_what_can_come_from_how_it_is_asked_is_no_refusal(ask, statement, word):
    verdict = ask(before=statement)
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert word in verdict.reason


@pytest.mark.parametrize(
    "statement",
    [
        "try: raise OSError(13, 'not yours')\n        except OSError as error: raise ValueError('no such model') from error",
        "raise ValueError('no such model') from MemoryError()",
        "raise ValueError('no such model') from ImportError('libcuda.so.1')",
        # As pydantic does it: the cause is in a list, and not in the chain.
        "inner = PermissionError(13, 'not yours')\n        class Invalid(ValueError):\n"
        "            def errors(self): return [{'type': 'x'}, {'ctx': {'error': inner}}]\n        raise Invalid('no such model')",
    ],
)
def test_a_refusal_that_has_such_a_cause_is_none_either(ask, statement):
    assert not ask(before=statement).asked


def test_whoever_wants_the_network_is_not_refused_for_want_of_it(ask):
    lookup = (
        "import socket\n        try: socket.getaddrinfo('hub.invalid', 443)\n        except OSError: pass\n"
    )
    verdict = ask(before=lookup + "        raise ValueError('no such model')")
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert "hub.invalid" in verdict.reason and "no such model" in verdict.reason
    # That of this very machine is none.
    verdict = ask(
        before="import socket; socket.getaddrinfo('localhost', 1)\n        raise ValueError('no such model')"
    )
    assert verdict.asked and not verdict.accepted


def test_the_death_of_a_helper_process_is_no_fault_of_the_arguments(ask):
    helper = "import subprocess\n        subprocess.run(['sh', '-c', '{}'])\n        raise ValueError('it failed to be inspected')"
    verdict = ask(before=helper.format("kill -9 $$"))
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert "want of memory" in verdict.reason
    assert not ask(before=helper.format("exit 1")).accepted


def test_other_processes_are_not_started(ask):
    verdict = ask(before="import multiprocessing\n        multiprocessing.Process(target=print).start()")
    assert not verdict.asked
    assert "other processes" in verdict.reason


def test_an_image_without_vllm_or_with_another_cannot_be_asked(ask, tmp_path):
    verdict = ask(files=False)
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert "vllm" in verdict.reason
    ask()
    (tmp_path / "vllm/entrypoints/cli/main.py").write_text("")
    verdict = ask(files=False)
    assert (verdict.asked, verdict.version) == (False, "0.20.2rc1")


def test_it_ends_by_itself_when_its_time_is_up(ask):
    verdict = ask(before="import time; time.sleep(60)", limit=1)
    assert not verdict.asked
    assert "too long" in verdict.reason


@pytest.mark.parametrize(
    ("lines", "code", "killed", "word"),
    [
        (["Killed"], 1, True, "want of memory"),
        (["Killed"], 137, False, "want of memory"),
        ([], None, False, "too long"),
        (["exec: python3: not found"], 127, False, "127"),
    ],
)
def test_a_probe_that_says_nothing(lines, code, killed, word):
    verdict = ask_image.judge(lines, code, killed)
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert word in verdict.reason


@pytest.mark.parametrize(
    ("entrypoint", "starts"),
    [
        (["vllm", "serve"], True),
        (["/opt/venv/bin/vllm", "serve"], True),
        (["/entrypoint.sh"], False),
        (["other", "serve"], False),
        (["python3", "-m", "vllm.entrypoints.openai.api_server"], False),
        (None, False),
        ([], False),
    ],
)
def test_only_an_image_that_starts_vllm_serve_is_asked_as_it(entrypoint, starts):
    assert ask_image.starts_vllm(entrypoint) is starts


def test_the_request_is_what_the_probe_reads():
    assert json.loads(ask_image.request(["/models/body", "--x"], 5, "vllm")) == {
        "command": ["/models/body", "--x"],
        "limit": 5,
        "program": "vllm",
    }


SAID = {"state": "accepted", "version": "0.20.2", "peak_kib": 1000, "names": [], "killed": []}
LINK = {"types": ["ValueError"], "errno": None}


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "[1]",
        "junk",
        "[" * 100_000,
        *(
            json.dumps(said)
            for said in (
                {},
                SAID | {"state": 5},
                SAID | {"state": []},
                SAID | {"version": ["1"]},
                SAID | {"peak_kib": "x"},
                SAID | {"peak_kib": -1},
                SAID | {"names": "abc"},
                SAID | {"killed": 9},
                SAID | {"state": "exit"},
                SAID | {"state": "exit", "code": "2"},
                SAID | {"state": "unknown"},
                SAID | {"state": "raised"},
                SAID | {"state": "raised", "chain": []},
                SAID | {"state": "raised", "chain": [5]},
                SAID | {"state": "raised", "chain": [{"types": []}]},
                SAID | {"state": "raised", "chain": [LINK | {"errno": []}]},
            )
        ),
    ],
)
def test_a_line_that_the_probe_never_says_refuses_nothing_and_ends_in_no_traceback(text):
    verdict = ask_image.judge([ask_image.MARK + text], 0)
    assert (verdict.asked, verdict.accepted) == (False, True)
    assert verdict.reason == "its answer is of another shape"
