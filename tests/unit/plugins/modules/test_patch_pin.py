"""What is stored, and when an image is asked. What a real image says is in molecule/patch_pin."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import docker
import docker.errors
import pytest
import requests
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine_socket
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import patch as patches
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import short_lived
from ansible_collections.sparkfleet.vllm.plugins.modules import patch_pin

CONTENT = b"answer = 42\n"
PATH = "vllm/models/gemma4_mtp.py"
TARGET = f"/site/{PATH}"
SEEN = {
    "directory": "/site/vllm",
    "version": "1",
    "files": {PATH: {"target": TARGET, "md5": "a" * 32, "sha256": "b" * 64}},
}


class Engine:
    """The images of a host: name -> ID. `asked` grows with each probe."""

    def __init__(self):
        self.images = {"repo/img@sha256:1": "sha256:" + "a" * 64}
        self.asked = []

    def image_id(self, socket, image):
        if self.images is None:
            raise engine_socket.EngineError("refused")
        return self.images.get(image, "")

    def ask_image(self, image, question):
        self.asked.append((image, question))
        return SEEN


@pytest.fixture
def engine(monkeypatch):
    engine = Engine()
    monkeypatch.setattr(patch_pin, "image_id", engine.image_id)
    monkeypatch.setattr(patch_pin, "ask_image", engine.ask_image)
    return engine


@pytest.fixture
def call(tmp_path, capsys):
    def run(check=False, image="repo/img@sha256:1", **patch):
        given = {
            "name": "gemma4_mtp.py",
            "src": "/controller/gemma4_mtp.py",
            "content": base64.b64encode(CONTENT).decode(),
            "md5": hashlib.md5(CONTENT).hexdigest(),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "path": PATH,
            **patch,
        }
        arguments = {"store": str(tmp_path), "image": image, "patches": [given], "_ansible_check_mode": check}
        capsys.readouterr()
        with patch_module_args(arguments), pytest.raises(SystemExit):
            patch_pin.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_an_image_is_asked_once(call, engine, tmp_path):
    first, second = call(), call()
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["patches"] == second["patches"] and first["image"] == second["image"]
    assert engine.asked == [("repo/img@sha256:1", {"package": "vllm", "files": {PATH: None}})]
    assert first["patches"][0]["target"] == TARGET


def test_a_full_disk_is_said(call, engine, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(patch_pin.files, "write", full)
    assert "seen: No space left on device; make room" in call()["msg"]
    monkeypatch.undo()


def test_another_image_or_another_question_is_asked_anew(call, engine, monkeypatch):
    call()
    engine.images["repo/img@sha256:2"] = "sha256:" + "b" * 64
    call(image="repo/img@sha256:2")
    call(target="/opt/x.py")
    monkeypatch.setattr(patches, "PROBE", patches.PROBE + "#")
    call()
    assert len(engine.asked) == 4


@pytest.mark.parametrize(
    "harm",
    [
        lambda held: "no JSON",
        lambda held: "[]",
        lambda held: json.dumps(held | {"question": {"package": "vllm", "files": {PATH: "/else"}}}),
        lambda held: json.dumps(held | {"answer": held["answer"] | {"files": {}}}),
        lambda held: json.dumps(held | {"answer": held["answer"] | {"files": {PATH: {"target": TARGET}}}}),
        lambda held: json.dumps(held | {"answer": {"files": held["answer"]["files"]}}),
    ],
)
def test_an_answer_that_is_damaged_is_asked_for_again(call, engine, tmp_path, harm):
    call()
    (known,) = (tmp_path / "cache/images" / ("a" * 64)).iterdir()
    known.write_text(harm(json.loads(known.read_text())))
    call()
    call()
    assert len(engine.asked) == 2


def test_a_refusal_leaves_nothing(call, engine, tmp_path, monkeypatch):
    nothing = SEEN | {"files": {PATH: {"target": None, "md5": None, "sha256": None}}}
    monkeypatch.setattr(patch_pin, "ask_image", lambda image, question: nothing)
    assert "seen none" in call()["msg"]
    assert list(tmp_path.iterdir()) == []


def test_check_mode_asks_and_keeps_nothing(call, engine, tmp_path):
    seen = call(check=True)
    assert seen["changed"] and seen["patches"][0]["stamp"] == "to be stored"
    assert engine.asked and list(tmp_path.iterdir()) == []


def test_without_the_image_or_an_engine(call, engine, tmp_path):
    engine.images = {}
    assert "pull it first" in call()["msg"]
    assert call(check=True)["patches"] == []
    engine.images = None
    assert "Docker engine that answers, seen: refused" in call()["msg"]
    assert call(check=True)["patches"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_docker_is_told_only_when_it_is_needed(call, engine, monkeypatch):
    call()
    monkeypatch.undo()
    monkeypatch.setattr(patch_pin, "image_id", engine.image_id)
    monkeypatch.setitem(sys.modules, "docker", None)
    assert not call()["changed"]
    assert "docker" in call(target="/opt/x.py")["msg"]
    assert call(target="/opt/x.py", check=True)["patches"] == []


def test_the_id_of_an_image_and_of_none(monkeypatch):
    asked = []

    def get(socket, url, expected):
        asked.append((socket, url))
        if len(asked) > 1:
            raise engine_socket.EngineError("x", 404 if len(asked) == 2 else 500)
        return {"Id": "sha256:a"}

    monkeypatch.setattr(engine_socket, "get", get)
    assert patch_pin.image_id("/s", "repo/img@sha256:1") == "sha256:a"
    assert asked == [("/s", "/images/repo%2Fimg%40sha256%3A1/json")]
    assert patch_pin.image_id("/s", "x") == ""
    with pytest.raises(engine_socket.EngineError):
        patch_pin.image_id("/s", "x")


class Container:
    """A probe. `ended` is its exit code, None for one that does not end."""

    def __init__(self, engine: Probes, options: dict[str, Any]) -> None:
        self.engine, self.options = engine, options
        self.attrs = {"State": {"OOMKilled": engine.killed}}

    def start(self) -> None:
        if self.engine.start_error:
            raise docker.errors.APIError("500 Server Error", explanation=self.engine.start_error)

    def wait(self, timeout: float) -> dict[str, int | None]:
        if self.engine.ended is None:
            raise requests.exceptions.ReadTimeout(f"not within {timeout} s")
        return {"StatusCode": self.engine.ended}

    def reload(self) -> None:
        pass

    def logs(self, stderr: bool = True) -> bytes:
        return self.engine.said + (b"Traceback\nboom\n" if stderr else b"")

    def remove(self, force: bool) -> None:
        self.engine.there.remove(self)


class Probes:
    """The probes of a host; one that the engine cannot start stays until it is removed."""

    def __init__(
        self, said: bytes = b"", ended: int | None = 0, start_error: str = "", killed: bool = False
    ) -> None:
        self.said, self.ended, self.start_error, self.killed = said, ended, start_error, killed
        self.there: list[Container] = []
        self.made: list[dict[str, Any]] = []

    def list(self, all: bool, filters: dict[str, str]) -> list[Container]:
        assert all
        wanted = dict([filters["label"].split("=")])
        return [each for each in self.there if each.options["labels"] == wanted]

    def create(self, **options: Any) -> Container:
        self.made.append(options)
        self.there.append(Container(self, options))
        return self.there[-1]


QUESTION = {"package": "vllm", "files": {PATH: None}}


def asked(
    monkeypatch: pytest.MonkeyPatch, probes: Probes, question: dict[str, Any] = QUESTION
) -> dict[str, Any]:
    monkeypatch.setattr(docker, "from_env", lambda: SimpleNamespace(containers=probes))
    return patch_pin.ask_image("repo/img@sha256:1", question)


def test_a_probe_may_do_nothing_but_answer(monkeypatch):
    probes = Probes(json.dumps(SEEN).encode())
    assert asked(monkeypatch, probes) == SEEN and probes.there == []
    (made,) = probes.made
    assert made["network_mode"] == "none" and made["cap_drop"] == ["ALL"] and made["read_only"]
    assert made["mem_limit"] == made["memswap_limit"] == "512m" and made["pids_limit"] == 128
    assert made["security_opt"] == ["no-new-privileges"] and made["log_config"]["config"]["max-size"] == "10m"


def test_a_probe_of_a_run_that_was_killed_goes_first(monkeypatch):
    probes = Probes(json.dumps(SEEN).encode())
    probes.create(labels={short_lived.LABEL: patch_pin.PROBE})
    asked(monkeypatch, probes)
    assert probes.there == []


@pytest.mark.parametrize(
    ("probes", "words"),
    [
        (lambda: Probes(start_error="runc is too old"), "runc is too old"),
        (lambda: Probes(ended=None), "no end within 150 s"),
        (lambda: Probes(ended=1), "exit code 1: boom"),
        (lambda: Probes(ended=137, killed=True), "killed for want of memory"),
    ],
)
def test_a_probe_that_does_not_answer_is_told_and_does_not_stay(monkeypatch, probes, words):
    engine = probes()
    with pytest.raises(patches.PatchError, match=words):
        asked(monkeypatch, engine)
    assert engine.there == []


def other(**found: object) -> dict[str, Any]:
    return SEEN | {"files": {PATH: {"target": TARGET, "md5": "a" * 32, "sha256": "b" * 64} | found}}


@pytest.mark.parametrize(
    "said",
    [
        b"junk",
        b"\xff\xfe",
        b"[" * 100_000,
        *(
            json.dumps(told).encode()
            for told in (
                [1],
                5,
                None,
                {"directory": "/site/vllm", "version": "1"},
                SEEN | {"files": []},
                SEEN | {"files": {}},
                SEEN | {"more": 1},
                SEEN | {"version": "1\x1b[2J"},
                SEEN | {"version": 5},
                SEEN | {"directory": "/site/../vllm"},
                SEEN | {"files": {PATH: "/x"}},
                other(target="/etc/passwd"),
                other(target="/etc/passwd:rw"),
                other(target=None),
                other(md5=5),
                other(sha256=None),
                other(sha256="B" * 64),
                SEEN | {"directory": "/a:b/vllm"} | {"files": other(target=f"/a:b/{PATH}")["files"]},
            )
        ),
    ],
)
def test_an_answer_that_is_none_is_refused_in_words(monkeypatch, said):
    with pytest.raises(patches.PatchError, match="expected python3 in image repo/img@sha256:1 to look for"):
        asked(monkeypatch, Probes(said))


def test_a_target_is_the_one_that_was_asked_for(monkeypatch):
    question = {"package": "vllm", "files": {PATH: "/opt/x.py"}}
    told = other(target="/opt/x.py")
    assert asked(monkeypatch, Probes(json.dumps(told).encode()), question) == told
    with pytest.raises(patches.PatchError, match="the target '/opt/y.py'"):
        asked(monkeypatch, Probes(json.dumps(other(target="/opt/y.py")).encode()), question)
