"""What a build is called, the command that makes it, what its log and a push say: plain functions of data."""

from __future__ import annotations

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._build import buildkit
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.push import Push, PushError

COMMIT = "dee37d89115db4c94a820a79a78a7828e141c910"
SOURCE = buildkit.Source("vllm-project/vllm", COMMIT, "docker/Dockerfile", "vllm-openai", {"a": "1"})


@pytest.mark.parametrize(
    "other",
    [
        buildkit.Source("other/vllm", COMMIT, "docker/Dockerfile", "vllm-openai", {"a": "1"}),
        buildkit.Source("vllm-project/vllm", "0" * 40, "docker/Dockerfile", "vllm-openai", {"a": "1"}),
        buildkit.Source("vllm-project/vllm", COMMIT, "Dockerfile", "vllm-openai", {"a": "1"}),
        buildkit.Source("vllm-project/vllm", COMMIT, "docker/Dockerfile", "", {"a": "1"}),
        buildkit.Source("vllm-project/vllm", COMMIT, "docker/Dockerfile", "vllm-openai", {"a": "2"}),
    ],
)
def test_whatever_makes_another_image_of_it_makes_another_fingerprint(other):
    assert other.fingerprint != SOURCE.fingerprint


def test_the_order_of_arguments_makes_no_other_image():
    one, two = (
        buildkit.Source("o/n", COMMIT, arguments=arguments)
        for arguments in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert one.fingerprint == two.fingerprint


def test_the_command_has_all_of_the_recipe_and_what_the_host_can_bear():
    argv = buildkit.command("docker", SOURCE, {"max_jobs": "16", "a": "of the host"}, "/c", "n:1")
    assert argv[:2] == ["docker", "build"]
    assert argv[-1] == "/c"
    assert set(argv) >= {
        "--file=/c/docker/Dockerfile",
        "--target=vllm-openai",
        "--build-arg=max_jobs=16",
        f"--label=sparkfleet.build={SOURCE.fingerprint}",
        f"--label=org.opencontainers.image.revision={COMMIT}",
        "--tag=n:1",
    }
    # The recipe's word is the last on what the image is.
    assert "--build-arg=a=1" in argv
    assert "--build-arg=a=of the host" not in argv


def test_without_a_stage_it_is_the_last_one():
    assert not [
        word
        for word in buildkit.command("docker", buildkit.Source("o/n", COMMIT), {}, "/c", "n:1")
        if "target" in word
    ]


def said(*lines):
    log = buildkit.Log()
    for line in lines:
        log.feed(line)
    return log.line(120)


STEP = "#12 [csrc-build 5/9] RUN python3 setup.py"


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ([], ""),
        (["#1 [internal] load build definition from Dockerfile", "#2 [auth] pull token"], ""),
        ([STEP], "build: csrc-build 5/9: RUN python3 setup.py, 2 min"),
        (
            [STEP, "#12 9.5 [ 45/310] Building"],
            "build: csrc-build 5/9: RUN python3 setup.py, 45 of 310, 2 min",
        ),
        # Of two at a time the one that began last; when it is done the other one is at work still.
        ([STEP, "#13 [rust 1/2] RUN cargo"], "build: rust 1/2: RUN cargo, 2 min"),
        (
            [STEP, "#13 [rust 1/2] RUN cargo", "#13 DONE 1.0s"],
            "build: csrc-build 5/9: RUN python3 setup.py, 2 min",
        ),
        ([STEP, "#12 CACHED"], ""),
        ([f"#4 [a 1/1] RUN {'x' * 500}"], f"build: a 1/1: RUN {'x' * 66}, 2 min"),
    ],
)
def test_what_a_build_is_at_is_one_line(lines, line):
    assert said(*lines) == line


def test_a_failure_shows_the_end_of_the_log_and_where_the_whole_is():
    log = buildkit.Log()
    for number in range(100):
        log.feed(f"#5 {number}.0 line {number}\n")
    log.feed("\n")
    text = buildkit.refusal(1, log, "/b/build.log")
    assert "seen exit status 1" in text
    assert "/b/build.log" in text
    assert "line 99" in text
    assert "line 75" in text
    assert "line 74" not in text


@pytest.mark.parametrize(
    ("line", "do"),
    [
        ("write /x: no space left on device", "docker builder prune"),
        ("nvcc error : 'cicc' died due to signal 9 (Kill signal) Killed", "image_build_host_arguments"),
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "docker-buildx"),
        ("429 Too Many Requests - toomanyrequests: You have reached your pull rate limit", "docker login"),
        ("curl: (6) Could not resolve host: download.pytorch.org", "steps that are done are not repeated"),
        ('target stage "vllm-openia" could not be found', "image.build of the recipe"),
        ("exit code: 2", "read the log"),
    ],
)
def test_what_it_says_decides_what_to_do(line, do):
    log = buildkit.Log()
    log.feed(line)
    assert do in buildkit.refusal(1, log, "/b/build.log")


def test_a_push_ends_with_a_digest():
    push = Push()
    assert push.line() == ""
    push.feed({"status": "Preparing", "id": "a"})
    push.feed(
        {"status": "Pushing", "id": "a", "progressDetail": {"current": 2_000_000_000, "total": 3_000_000_000}}
    )
    push.feed({"status": "Pushing", "id": "b", "progressDetail": {"current": 1_000_000_000}})
    assert push.line() == "image: 3.0 GB of its layers into the registry"
    assert push.digest == ""
    push.feed({"aux": {"Tag": "t", "Digest": ONE, "Size": 5}})
    push.feed({"status": f"t: digest: {ONE} size: 5"})
    assert (push.digest, push.instead) == (ONE, "")


ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.mark.parametrize(
    ("event", "digest"),
    [
        ({"aux": {"Tag": "t", "Digest": ONE, "Size": 5}}, ONE),
        # Where images are in containerd there is nothing but the words.
        ({"status": f"main-abc: digest: {ONE} size: 1234"}, ONE),
        ({"aux": {"Digest": "sha256:1"}}, ""),
        ({"aux": {"Digest": None}}, ""),
        ({"status": "t: digest: sha256:1 size: 5"}, ""),
        ({"status": f"t: digest: {ONE}"}, ""),
        ({"status": f"t: digest: {ONE} size: 5\nmore"}, ""),
        ({"status": None}, ""),
    ],
)
def test_a_digest_is_one_or_is_none(event, digest):
    push = Push()
    push.feed(event)
    assert push.digest == digest


@pytest.mark.parametrize(
    ("original", "instead"), [({"digest": OTHER}, OTHER), ({}, "an index"), (None, "an index")]
)
def test_the_image_that_was_pushed_instead_of_an_index_counts(original, instead):
    push = Push()
    push.feed({"aux": {"manifestPushedInsteadOfIndex": True, "originalIndex": original}})
    push.feed({"status": f"t: digest: {ONE} size: 5"})
    assert (push.digest, push.instead) == (ONE, instead)


@pytest.mark.parametrize(
    ("error", "do"),
    [
        ("Get https://m:5000/v2/: http: server gave HTTP response to HTTPS client", "insecure-registries"),
        ("denied: requested access to the resource is denied", "image_build_username"),
        ("no space left on device", "make room"),
        ("received unexpected HTTP status: 500", "journalctl -u docker"),
    ],
)
def test_a_push_that_is_refused_says_what_to_do(error, do):
    with pytest.raises(PushError, match=do) as refused:
        Push().feed({"error": error})
    assert error in str(refused.value)
