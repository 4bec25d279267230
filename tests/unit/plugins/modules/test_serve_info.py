from __future__ import annotations

import hashlib
from types import SimpleNamespace

import docker.errors
import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host.unit import Unit
from ansible_collections.sparkfleet.vllm.plugins.modules import serve_info

IMAGE = "vllm/vllm-openai@sha256:" + "a" * 64


class Engine:
    """As much of docker's client as the module asks."""

    def __init__(self, images=(), container=None):
        self.images = SimpleNamespace(get=lambda name: self._image(name, images))
        changes = [{"Path": path, "Kind": 1} for path in ("/opt/a.py", "/usr/b.so", "/root/.bash_history")]
        self.api = SimpleNamespace(
            inspect_container=lambda name: self._container(container), diff=lambda name: changes
        )

    def _image(self, name, images):
        if name not in images:
            raise docker.errors.ImageNotFound(name)
        return SimpleNamespace(id="sha256:1", attrs={"RepoDigests": [name]})

    def _container(self, container):
        if container is None:
            raise docker.errors.NotFound("no such container")
        return container


@pytest.fixture
def serving(tmp_path):
    patch = tmp_path / "gemma4_mtp.py"
    patch.write_bytes(b"patched")
    (tmp_path / "body").mkdir()
    return {
        "container": {"image": IMAGE},
        "models": {"body": {"path": str(tmp_path / "body"), "mount": "/models/body"}},
        "files": [
            {"path": "/a.py", "sha256": hashlib.sha256(b"patched").hexdigest(), "host_path": str(patch)},
            {"path": "/carried.py", "sha256": "0" * 64},
        ],
        "gate": {},
    }


def test_what_is_all_there_can_serve_again(serving):
    seen = serve_info.look_recorded(Engine([IMAGE]), serving)
    assert seen["missing"] == []
    assert len(seen["stamps"]) == 1


def test_everything_that_is_gone_is_named(serving, tmp_path):
    (tmp_path / "body").rmdir()
    (tmp_path / "gemma4_mtp.py").unlink()
    missing = serve_info.look_recorded(Engine(), serving)["missing"]
    assert missing == [
        f"image {IMAGE}",
        f"body in {tmp_path / 'body'}",
        f"patch {tmp_path / 'gemma4_mtp.py'}",
    ]


def test_a_patch_that_was_edited_is_not_what_passed(serving, tmp_path):
    (tmp_path / "gemma4_mtp.py").write_bytes(b"edited")
    seen = serve_info.look_recorded(Engine([IMAGE]), serving)
    assert seen["missing"] == [f"patch {tmp_path / 'gemma4_mtp.py'} (it is there, with other content)"]
    assert seen["stamps"] == []


def test_what_was_mounted_besides_has_to_be_there(serving, tmp_path):
    serving["mounts"] = [{"path": str(tmp_path / "x.jinja"), "mount": "/config/x.jinja"}]
    assert serve_info.look_recorded(Engine([IMAGE]), serving)["missing"] == [f"mount {tmp_path / 'x.jinja'}"]
    (tmp_path / "x.jinja").touch()
    assert serve_info.look_recorded(Engine([IMAGE]), serving)["missing"] == []


def test_a_record_that_does_not_say_how_it_was_judged_cannot_be_gone_back_to(serving):
    del serving["gate"]
    assert "judged" in serve_info.look_recorded(Engine([IMAGE]), serving)["missing"][0]


def test_a_mended_patch_is_another_file(serving, tmp_path):
    first = serve_info.look_recorded(Engine([IMAGE]), serving)["stamps"]
    (tmp_path / "new").write_bytes(b"patched")
    (tmp_path / "new").rename(tmp_path / "gemma4_mtp.py")
    assert serve_info.look_recorded(Engine([IMAGE]), serving)["stamps"] != first


def test_no_container_is_none():
    assert serve_info.look_container(Engine(), "sparkfleet-vllm") is None


@pytest.mark.parametrize(("status", "stale"), [("running", ["/models/b"]), ("exited", [])])
def test_a_running_server_says_what_was_replaced_under_it(monkeypatch, status, stale):
    looked = []

    def stale_mounts(pid, mounts):
        looked.append((pid, mounts))
        return ["/models/b"]

    monkeypatch.setattr(serve_info.gate_container, "stale_mounts", stale_mounts)
    seen = serve_info.look_container(
        Engine(
            container={
                "Id": "c",
                "Image": "sha256:1",
                "HostConfig": {},
                "State": {"Status": status, "StartedAt": "now", "Pid": 7},
                "Config": {"Image": IMAGE},
                "Mounts": [
                    {"Type": "bind", "Destination": "/models/b", "Source": "/srv/b"},
                    {"Type": "bind", "Destination": "/usr/b.so", "Source": "/srv/b.so"},
                    {"Type": "volume", "Destination": "/v", "Source": "/var/lib/docker/volumes/v"},
                ],
            }
        ),
        "sparkfleet-vllm",
    )
    assert seen and seen["stale"] == stale
    assert looked == ([(7, {"/models/b": "/srv/b", "/usr/b.so": "/srv/b.so"})] if stale else [])
    # What is mounted there, nobody edited.
    assert seen["edited"] == ["/opt/a.py"] and seen["restart_policy"] == "no"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Unit(), {"text": "", "enabled": False, "watches": False}),
        (Unit("[Unit]\n", "enabled", watches=True), {"text": "[Unit]\n", "enabled": True, "watches": True}),
        (Unit("[Unit]\n", "disabled"), {"text": "[Unit]\n", "enabled": False, "watches": False}),
    ],
)
def test_a_unit_and_whether_it_keeps_the_server_running(monkeypatch, seen, expected):
    monkeypatch.setattr(serve_info.unit, "look", lambda name: seen if name == "v.service" else None)
    assert serve_info.look_unit("v") == expected
