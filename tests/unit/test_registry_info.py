"""What is a registry that serves as it should. A real one is in molecule/image."""

from __future__ import annotations

import json
from http.server import HTTPServer
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.sparkfleet.vllm.plugins.modules import registry_info
from server_lab import Handler, served

ACTIVE = {
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ActiveEnterTimestamp": "@9999999999",
}


class Answers(Handler):
    def do_GET(self):
        self.answer(200 if self.path == "/v2/" else 404)


@pytest.fixture(scope="module")
def url():
    with served(HTTPServer(("127.0.0.1", 0), Answers)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def call(tmp_path, url, capsys, monkeypatch):
    """A host where all is well, before `harm` is done to it."""
    program, storage, config = tmp_path / "program", tmp_path / "storage", tmp_path / "config"
    program.touch()
    storage.mkdir(mode=0o755)
    config.write_text("a: 1\n")
    config.chmod(0o644)
    # Whoever runs the tests is root here.
    owner = registry_info.owner_problem
    monkeypatch.setattr(
        registry_info, "owner_problem", lambda path, mode, user, group, want: owner(path, mode, 0, 0, want)
    )

    def run(state=ACTIVE, harm=lambda host: None, **arguments):
        harm(tmp_path)
        monkeypatch.setattr(registry_info, "shown", lambda _module, _unit: dict(state))
        given = {
            "program": str(program),
            "storage": str(storage),
            "files": [{"path": str(config), "content": "a: 1\n"}],
            "unit": "x.service",
            "url": url,
            **arguments,
        }
        capsys.readouterr()
        with patch_module_args(given), pytest.raises(SystemExit):
            registry_info.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_one_that_serves(call):
    result = call()
    assert (result["settled"], result["stale"], result["program"], result["changed"]) == (
        True,
        False,
        True,
        False,
    )
    assert result["problems"] == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda host: (host / "program").unlink(), "program: expected a program"),
        (lambda host: (host / "config").write_text("a: 2\n"), "config: expected other content"),
        (lambda host: (host / "config").write_bytes(b"\xff"), "config: expected a file, seen"),
        (lambda host: (host / "config").unlink(), "config: expected a file, seen"),
        (lambda host: (host / "config").chmod(0o600), "config: expected 644 root:root, seen 600"),
        (lambda host: (host / "storage").chmod(0o700), "storage: expected 755 root:root, seen 700"),
        (lambda host: (host / "storage").rmdir(), "storage: expected a directory"),
    ],
)
def test_what_is_not_as_it_should_be_is_named(call, harm, words):
    result = call(harm=harm)
    assert not result["settled"] and words in result["problems"][0]
    assert result["program"] is ("program" not in words.partition(":")[0])


@pytest.mark.parametrize(
    ("change", "stale", "words"),
    [
        ({"ActiveState": "failed"}, False, "x.service: expected active, seen failed"),
        ({"UnitFileState": "disabled"}, False, "x.service: expected enabled, seen disabled"),
        ({"UnitFileState": ""}, False, "x.service: expected enabled, seen no such unit"),
        ({"NeedDaemonReload": "yes"}, True, "x.service: expected its files in use"),
        ({"ActiveEnterTimestamp": "@1"}, True, "x.service: expected its files in use"),
        ({"ActiveEnterTimestamp": ""}, False, ""),
    ],
)
def test_a_unit_that_is_down_or_runs_with_what_was_there_before(call, change, stale, words):
    result = call(state=ACTIVE | change)
    assert result["stale"] is stale
    assert result["settled"] is (words == "") and (not words or words in result["problems"][0])


def test_a_start_in_the_second_of_the_writing_is_not_stale():
    assert not registry_info.stale({"ActiveEnterTimestamp": "@100"}, 100.9)
    assert registry_info.stale({"ActiveEnterTimestamp": "@100"}, 101.0)


def test_one_that_does_not_answer(call, url):
    for wrong in ("http://127.0.0.1:1", f"{url}/else"):
        result = call(url=wrong)
        assert not result["settled"] and result["problems"][0].startswith(
            f"{wrong}: expected an answer, seen "
        )


def test_another_owner_is_named():
    problem = registry_info.owner_problem(Path("/x"), 0o100644, 1000, 0, 0o644)
    assert problem == "/x: expected 644 root:root, seen 644 1000:0"
    assert registry_info.owner_problem(Path("/x"), 0o100644, 0, 0, 0o644) == ""
