"""The module's own part of a pull: when it begins again, what it notes, and whom it warns."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.module_utils._common import upstream
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images import image as images
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.engine import PullError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.ledger import LedgerError
from ansible_collections.sparkfleet.vllm.plugins.module_utils._images.reference import parse_reference
from ansible_collections.sparkfleet.vllm.plugins.modules import image_pull

DIGEST = "sha256:" + "a" * 64
IMAGE = f"vllm/vllm-openai@{DIGEST}"
HUB = parse_reference(IMAGE)
LAYER = [
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}},
    {"status": "Pull complete", "id": "a"},
]
BROKEN = [{"error": "unexpected EOF"}]


class Engine:
    """Gives one stream of events a pull."""

    def __init__(self, *streams):
        self.streams, self.asked = list(streams), []
        self.api = SimpleNamespace(pull=self.pull)

    def pull(self, name, **options):
        self.asked.append((name, options["tag"]))
        stream = self.streams.pop(0)
        if isinstance(stream, Exception):
            raise stream
        return iter(stream)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(image_pull.time, "sleep", lambda _seconds: None)


def test_it_pulls_by_digest():
    engine = Engine(LAYER)
    assert image_pull.pull(engine, HUB, 0, print) == 10
    assert engine.asked == [("vllm/vllm-openai", DIGEST)]


@pytest.mark.parametrize("failure", [BROKEN, docker.errors.APIError("reset"), ConnectionError("gone")])
def test_a_pull_that_broke_off_is_begun_again(failure):
    said: list[str] = []
    assert image_pull.pull(Engine(failure, LAYER), HUB, 1, said.append) == 10
    assert len(said) == 1
    assert "trying again" in said[0]


def test_what_came_before_it_broke_off_counts_too():
    assert image_pull.pull(Engine([LAYER[0], *BROKEN], LAYER), HUB, 1, print) == 15


def test_and_given_up_in_the_end():
    engine = Engine(BROKEN, BROKEN, LAYER)
    with pytest.raises(PullError, match="unexpected EOF"):
        image_pull.pull(engine, HUB, 1, print)
    assert len(engine.asked) == 2


def test_what_no_repetition_can_mend_is_not_repeated():
    engine = Engine([{"error": "no space left on device"}], LAYER)
    with pytest.raises(PullError, match="make room"):
        image_pull.pull(engine, HUB, 5, print)
    assert len(engine.asked) == 1


def test_an_image_is_noted_once(tmp_path):
    assert images.noted(str(tmp_path), IMAGE, write=False)
    assert not (tmp_path / "images.json").exists()
    assert images.noted(str(tmp_path), IMAGE, write=True)
    assert not images.noted(str(tmp_path), IMAGE, write=True)
    assert images.noted(str(tmp_path), "other@sha256:1", write=True)
    assert json.loads((tmp_path / "images.json").read_text())["images"] == ["other@sha256:1", IMAGE]


@pytest.mark.parametrize(
    "content", [b"\xff", b"[" * 100_000, b"1" * 5000, b'{"version": 1, "images": 5}', None]
)
def test_a_ledger_that_cannot_be_read_is_one_refusal(tmp_path, content):
    if content is None:
        (tmp_path / "images.json").mkdir()
    else:
        (tmp_path / "images.json").write_bytes(content)
    with pytest.raises(LedgerError, match="expected .* seen "):
        images.noted(str(tmp_path), IMAGE, write=True)


def test_a_ledger_of_another_version_is_not_overwritten(tmp_path):
    (tmp_path / "images.json").write_text('{"version": 2}')
    with pytest.raises(LedgerError):
        images.noted(str(tmp_path), IMAGE, write=True)


def answers(monkeypatch, answer):
    def ask(_method, url, **_options):
        assert url == "http://192.0.2.1:5000/v2/"
        if isinstance(answer, Exception):
            raise answer
        return upstream.Answer(answer)

    monkeypatch.setattr(image_pull.upstream, "ask", ask)


def test_a_registry_that_answers_needs_no_warning(monkeypatch):
    answers(monkeypatch, 200)
    assert image_pull.other_way("http://192.0.2.1:5000/", HUB, True) == ""


@pytest.mark.parametrize("answer", [upstream.Unreachable("refused"), 502])
def test_one_that_does_not_is_told_with_what_happens_instead(monkeypatch, answer):
    answers(monkeypatch, answer)
    said = image_pull.other_way("http://192.0.2.1:5000", HUB, True)
    assert "30 s" not in said, "it answered at once"
    assert "expected the fleet's registry at http://192.0.2.1:5000, seen: " in said
    assert "next mirror or Docker Hub" in said


@pytest.mark.parametrize("in_containerd", [True, False])
def test_what_one_that_swallows_packets_costs_is_told(monkeypatch, in_containerd):
    now = iter([100.0, 105.0])
    answers(monkeypatch, upstream.Unreachable("ConnectTimeoutError"))
    monkeypatch.setattr(image_pull.time, "monotonic", lambda: next(now))
    said = image_pull.other_way("http://192.0.2.1:5000", HUB, in_containerd)
    assert ("up to 30 s for it in each request" in said) == in_containerd


def test_the_module_says_so_before_it_pulls(monkeypatch, capsys):
    engine: Any = Engine(LAYER)
    here: list[Any] = []
    warned: list[str] = []
    monkeypatch.setattr(image_pull.AnsibleModule, "warn", lambda _module, text: warned.append(text))

    def get(name):
        if not here:
            raise docker.errors.ImageNotFound(name)
        return SimpleNamespace(id="sha256:1", attrs={"RepoDigests": [name]})

    def pull(*arguments, **options):
        here.append(arguments)
        return engine.pull(*arguments, **options)

    engine.api, engine.images = SimpleNamespace(pull=pull), SimpleNamespace(get=get)
    engine.info = lambda: {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    monkeypatch.setattr(image_pull.docker, "from_env", lambda **_options: engine)
    monkeypatch.setattr(image_pull, "SILENT", 0.0)
    answers(monkeypatch, upstream.Unreachable("ConnectTimeoutError"))
    given = {"image": IMAGE, "registry": "http://192.0.2.1:5000"}
    with patch_module_args(given), pytest.raises(SystemExit):
        image_pull.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["id"], result["pulled_bytes"]) == (True, "sha256:1", 10)
    assert "up to 30 s for it in each request" in warned[0]


def test_an_image_that_no_mirror_is_asked_for_is_told():
    said = image_pull.other_way("http://192.0.2.1:5000", parse_reference(f"ghcr.io/o/n@{DIGEST}"), False)
    assert "images of Docker Hub only" in said
    assert "ghcr.io" in said


def test_an_image_is_settled_when_it_is_there_and_noted(tmp_path):
    def look(*there, image=IMAGE):
        def get(name):
            if name not in there:
                raise docker.errors.ImageNotFound(name)
            return SimpleNamespace(id="sha256:1", attrs={"RepoDigests": [name]})

        client = SimpleNamespace(images=SimpleNamespace(get=get))
        return image_pull.look(client, parse_reference(image), image, str(tmp_path))

    assert look() == {"id": "", "settled": False, "mirrored": True}
    assert look(IMAGE) == {"id": "sha256:1", "settled": False, "mirrored": True}
    image_pull.images.noted(str(tmp_path), IMAGE, write=True)
    assert look(IMAGE)["settled"] is True
    assert look()["settled"] is False
    assert look(image="registry.example.com/vllm@sha256:" + "a" * 64)["mirrored"] is False
