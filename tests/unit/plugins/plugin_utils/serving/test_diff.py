"""A container that would be replaced, as lines: one for each thing that differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving.diff import lines, whole
from helpers.playbook import run_playbook

ROOT = Path(__file__).resolve().parents[5]
SPECULATION = '{"method":"mtp","model":"/models/draft","num_speculative_tokens":%d}'


def argv(tokens=1, cache="fp8", prefix="--enable-prefix-caching"):
    return ["/models/body", "--port", "8000", "--speculative-config", SPECULATION % tokens, "--kv-cache-dtype", cache, prefix]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        (argv(), argv(cache="auto"), ["--kv-cache-dtype fp8"], ["--kv-cache-dtype auto"]),
        (
            argv(),
            argv(tokens=2),
            ["--speculative-config.num_speculative_tokens 1"],
            ["--speculative-config.num_speculative_tokens 2"],
        ),
        (
            argv(),
            argv(prefix="--no-enable-prefix-caching"),
            ["--enable-prefix-caching"],
            ["--no-enable-prefix-caching"],
        ),
        (argv(), [*argv(), "--seed", "1"], [], ["--seed 1"]),
        ([*argv(), "--seed", "1"], argv(), ["--seed 1"], []),
        (argv(), ["/models/other", *argv()[1:]], ["model /models/body"], ["model /models/other"]),
        (
            ["m", "--x", '{"a": {"b": 1, "c": {}}, "d": "text"}'],
            ["m", "--x", '{"a": {"b": 2}}'],
            ["--x.a.b 1", "--x.a.c {}", "--x.d text"],
            ["--x.a.b 2"],
        ),
        (["m", "--x", "{not json"], ["m", "--x", "[1]"], ["--x {not json"], ["--x [1]"]),
        (
            ["m", "--served-model-name", "a", "b"],
            ["m", "--served-model-name", "a"],
            ["--served-model-name a b"],
            ["--served-model-name a"],
        ),
        # Written another way, it is the same: nothing to read.
        (["m", "--seed", "1"], ["m", "--seed=1"], [], []),
        (
            ["m", "--api-key", "first", "--hf-token", "third"],
            ["m", "--api-key", "second", "--hf-token", "third"],
            ["--api-key ***"],
            ["--api-key *** (changed)"],
        ),
        (
            ["m", "--max-num-batched-tokens", "1"],
            ["m", "--max-num-batched-tokens", "2"],
            ["--max-num-batched-tokens 1"],
            ["--max-num-batched-tokens 2"],
        ),
    ],
)
def test_serve_arguments_by_option_and_key(before, after, left, right):
    assert lines({"command": before}, {"command": after}) == (
        [f"argument {line}" for line in left],
        [f"argument {line}" for line in right],
    )


def test_environment_by_name_and_no_secret():
    before = {"env": ["A=1", "KEPT=x", "VLLM_API_KEY=first", "GONE_TOKEN=a"]}
    after = {"env": ["A=2", "KEPT=x", "VLLM_API_KEY=second", "NEW=hf_abcdefghijklmnopqrst"]}
    left, right = lines(before, after)
    assert left == ["environment A=1", "environment VLLM_API_KEY=***", "environment GONE_TOKEN=***"]
    assert right == ["environment A=2", "environment VLLM_API_KEY=*** (changed)", "environment NEW=hf_***"]


def test_mounts():
    before = {"volume_binds": ["/srv/m/1:/models/body:ro", "/srv/c:/root/.cache/vllm:rw"]}
    after = {"volume_binds": ["/srv/m/2:/models/body:ro", "/srv/c:/root/.cache/vllm:rw", "/srv/p:/x.py:ro"]}
    assert lines(before, after) == (
        ["mount /srv/m/1:/models/body:ro"],
        ["mount /srv/m/2:/models/body:ro", "mount /srv/p:/x.py:ro"],
    )


def test_another_image_is_one_line():
    before = {"image": "sha256:1", "image_name": "v@sha256:a", "labels": {"maintainer": "one"}}
    after = {"image": "sha256:2", "image_name": "v@sha256:b", "labels": {"maintainer": "other"}}
    assert lines(before, after) == (["image v@sha256:a"], ["image v@sha256:b"])
    # The same name for other content: then the ids are what can be told.
    assert lines({"image": "sha256:1"}, {"image": "sha256:2"}) == (["image sha256:1"], ["image sha256:2"])


def labels(stamps):
    return {"labels": {"sparkfleet.vllm.patches": stamps, "other": "same"}}


def test_a_patch_that_was_mended():
    left, right = lines(labels("a-1 b-1"), labels("a-1 b-2"))
    assert left == ["patch file as it was when the server started"]
    assert right == ["patch file mended in the store since"]


def test_a_container_that_does_not_say_which_files_it_was_started_with():
    assert lines(labels(""), labels("a-1")) == ([], ["patch file mended in the store since"])


def test_a_patch_that_is_new_is_told_by_its_mount():
    mount = {"volume_binds": ["/srv/p:/x.py:ro"]}
    assert lines(labels("") | {"volume_binds": []}, labels("a-1") | mount) == ([], ["mount /srv/p:/x.py:ro"])


def test_what_has_no_form_of_its_own_is_still_told():
    before = {
        "shm_size": 1,
        "device_requests": [{"Count": -1}],
        "labels": {"by": "hand"},
        "published_ports": None,
    }
    after = {
        "shm_size": 2,
        "device_requests": [],
        "labels": {},
        "published_ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]},
    }
    assert lines(before, after) == (
        ["shm_size 1", 'device_requests [{"Count": -1}]', "label by=hand"],
        ["shm_size 2", "device_requests []", "port 8000/tcp at 127.0.0.1:8000"],
    )


def test_a_container_that_is_not_there_or_does_not_run():
    assert lines({"exists": False}, {"exists": True}) == ([], ["container"])
    assert lines({"running": False}, {"running": True}) == (["container stopped"], ["container running"])


def test_a_container_where_there_is_none_is_shown_whole():
    container = {"image": "v@sha256:a", "command": ["/m", "--x", "1"], "env": {"A_KEY": "hidden", "B": "2"}}
    assert lines({}, whole(container | {"volumes": ["/s:/m:ro"], "privileged": False})) == (
        [],
        [
            "image v@sha256:a",
            "argument model /m",
            "argument --x 1",
            "environment A_KEY=***",
            "environment B=2",
            "mount /s:/m:ro",
        ],
    )


def test_what_a_recipe_asks_for_besides_is_shown_with_it():
    container = {
        "image": "v@sha256:a",
        "command": ["/m"],
        "entrypoint": ["vllm", "serve"],
        "ulimits": ["memlock:-1:-1"],
    }
    assert lines({}, whole(container))[1][2:] == ['entrypoint ["vllm", "serve"]', "ulimit memlock:-1:-1"]


RDMA = {"PathOnHost": "/dev/infiniband", "PathInContainer": "/dev/infiniband", "CgroupPermissions": "rw"}
NOFILE = {"Name": "nofile", "Soft": 4096, "Hard": 4096}


def memlock(limit):
    return {"Name": "memlock", "Soft": limit, "Hard": limit}


def asked(**given):
    """The labels of a container that was asked for so."""
    return {"labels": {"sparkfleet.vllm.instead": json.dumps(given)} if given else {}}


def test_devices_and_limits_by_name_and_their_label_says_nothing_more():
    before = {
        "devices": [RDMA],
        "ulimits": [memlock(65536), NOFILE],
        **asked(ulimits=["memlock:65536:65536"]),
    }
    after = {"devices": [], "ulimits": [NOFILE, memlock(-1)], **asked(ulimits=["memlock:-1:-1"])}
    assert lines(before, after) == (
        ["device /dev/infiniband:/dev/infiniband:rw", "ulimit memlock:65536:65536"],
        ["ulimit memlock:-1:-1"],
    )


def test_what_is_asked_for_no_longer_is_told_by_its_label_alone():
    """docker_container compares no option that is left out."""
    before = asked(entrypoint=["env", "vllm", "serve"], ulimits=["memlock:-1:-1"])
    assert lines(before, asked()) == (['entrypoint ["env", "vllm", "serve"]', "ulimit memlock:-1:-1"], [])


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_label_that_somebody_wrote_is_shown_as_it_is(text):
    label = {"sparkfleet.vllm.instead": text}
    assert lines({"labels": label}, asked()) == ([f"label sparkfleet.vllm.instead={text}"], [])


def test_nothing_differs():
    assert lines({}, {}) == ([], [])


def play(tmp_path, before, after, *arguments, **options):
    """What a person sees of serve_diff in a run of ansible-playbook: one host, what docker_container returned recorded."""
    compared = {"changed": True} | (
        {"diff": {"before": before, "after": after}} if before is not None else {}
    )
    (tmp_path / "play.yml").write_text(
        json.dumps(
            [
                {
                    "hosts": "all",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "sparkfleet.vllm.serve_diff": {
                                "compared": compared,
                                "name": "sparkfleet-vllm",
                                **options,
                            }
                        }
                    ],
                }
            ]
        )
    )
    ran = run_playbook(
        "-i",
        "spark-1,",
        *arguments,
        tmp_path / "play.yml",
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".cache/collections"),
        ANSIBLE_LOCAL_TEMP=str(tmp_path),
        ANSIBLE_NOCOLOR="1",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def changed_lines(shown):
    return [line for line in shown if line.startswith(("-", "+")) and not line.startswith(("---", "+++"))]


def test_one_changed_argument_is_one_line_on_each_side_of_ansibles_diff(tmp_path):
    shown = play(tmp_path, {"command": argv()}, {"command": argv(tokens=2)}, "--check", "--diff")
    assert changed_lines(shown) == [
        "-argument --speculative-config.num_speculative_tokens 1",
        "+argument --speculative-config.num_speculative_tokens 2",
    ]


def test_a_result_without_a_diff_says_what_is_missing(tmp_path):
    with pytest.raises(AssertionError, match="diff: true"):
        play(tmp_path, None, None, "--check", "--diff")


def test_where_there_is_no_container_every_thing_of_it_is_a_line(tmp_path):
    options = {"container": {"image": "v@sha256:a", "command": ["/m"]}}
    shown = play(tmp_path, {"exists": False}, {"exists": True}, "--check", "--diff", **options)
    assert changed_lines(shown) == ["+image v@sha256:a", "+argument model /m"]
