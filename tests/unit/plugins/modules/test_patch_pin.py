"""What is stored, and when an image is asked. What a real image says is in molecule/patch_pin."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from types import SimpleNamespace

import docker
import docker.errors
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import engine_socket
from ansible_collections.sparkfleet.vllm.plugins.module_utils._serve import patch as patches
from ansible_collections.sparkfleet.vllm.plugins.modules import patch_pin

CONTENT = b"answer = 42\n"
PATH = "vllm/models/gemma4_mtp.py"
TARGET = f"/site/{PATH}"
SEEN = {
    "directory": "/site/vllm",
    "version": "1",
    "files": {PATH: {"target": TARGET, "md5": "m", "sha256": "s"}},
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


class Left:
    def __init__(self, there: list[Left]) -> None:
        self.there = there

    def remove(self, force: bool) -> None:
        self.there.remove(self)


class Probes:
    """Containers of a host by label; one that the engine cannot start stays, whatever `remove` says."""

    def __init__(self) -> None:
        self.there: dict[str, list[Left]] = {}

    def list(self, all: bool, filters: dict[str, str]) -> list[Left]:
        return list(self.there.get(filters["label"], []) if all else [])

    def run(self, image: str, labels: dict[str, str], remove: bool, **options: object) -> bytes:
        ((name, value),) = labels.items()
        there = self.there.setdefault(f"{name}={value}", [])
        there.append(Left(there))
        raise docker.errors.APIError("500 Server Error", explanation="runc is too old")


def test_a_probe_that_the_engine_cannot_start_does_not_stay(monkeypatch):
    probes = Probes()
    killed = probes.there.setdefault(f"{patch_pin.LABEL}={patch_pin.PROBE}", [])
    killed.append(Left(killed))
    monkeypatch.setattr(docker, "from_env", lambda: SimpleNamespace(containers=probes))
    with pytest.raises(patches.PatchError, match="runc is too old"):
        patch_pin.ask_image("repo/img@sha256:1", {})
    assert [label for label, there in probes.there.items() if there] == []
