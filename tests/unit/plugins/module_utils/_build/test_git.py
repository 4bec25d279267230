"""The source of a build, with git itself: one commit, what went before it by name, and nothing else."""

from __future__ import annotations

import functools
import os
import subprocess
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._build import git
from helpers.build import Repository
from helpers.server import served


@pytest.fixture(params=[True, False], ids=["filtered", "whole"])
def repository(request, tmp_path):
    """One that leaves files of the history out, as GitHub does, and one that cannot."""
    made = Repository(tmp_path / "git")
    made.git("config", "uploadpack.allowFilter", str(request.param).lower())
    return made


def url(repository):
    return f"{repository.endpoint}/owner/name"


def test_it_is_the_commit_and_not_what_came_after(repository, tmp_path):
    directory = tmp_path / "b" / "source"
    said: list[str] = []
    git.checkout(url(repository), repository.commits[1], directory, said.append)
    assert (directory / "Dockerfile").read_text() == "FROM scratch\n# 2\n"
    assert said[-1].startswith("source: v0.1.0-1-g")


def test_its_version_can_be_told_where_the_repository_cannot_be_reached(repository, tmp_path):
    directory = tmp_path / "source"
    git.checkout(url(repository), repository.commits[2], directory)
    repository.path.rename(tmp_path / "gone")
    described = subprocess.run(
        ["git", "-C", str(directory), "describe", "--dirty", "--tags", "--long"],
        capture_output=True,
        text=True,
    )
    assert described.stdout.strip() == f"v0.1.0-2-g{repository.commits[2][:7]}"


def test_what_an_earlier_run_left_is_not_built(repository, tmp_path):
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM something else\n")
    (directory / "left").write_text("")
    git.checkout(url(repository), repository.commits[0], directory)
    assert (directory / "Dockerfile").read_text() == "FROM scratch\n# 1\n"
    assert not (directory / "left").exists()


def test_a_commit_that_it_does_not_have_is_told(repository, tmp_path):
    with pytest.raises(git.CheckoutError, match=f"expected the commit {'1' * 40}, seen: .*not our ref"):
        git.checkout(url(repository), "1" * 40, tmp_path / "source")


def test_a_tag_of_that_name_is_no_commit(repository, tmp_path):
    """git would take a name as well as a hash."""
    repository.git("tag", "a" * 40, repository.commits[0])
    with pytest.raises(git.CheckoutError):
        git.checkout(url(repository), "a" * 40, tmp_path / "source")


def test_a_repository_that_is_not_there_is_told_with_what_to_look_at(tmp_path):
    with pytest.raises(git.CheckoutError, match="spark_git_endpoint"):
        git.checkout(f"file://{tmp_path}/nowhere", "1" * 40, tmp_path / "source")


def test_a_server_that_only_hands_out_files_is_refused(repository, tmp_path):
    """It knows no depth."""
    repository.git("update-server-info")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(repository.path / ".git"))
    with (
        served(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server,
        pytest.raises(git.CheckoutError, match="shallow"),
    ):
        git.checkout(f"http://127.0.0.1:{server.server_port}", repository.commits[2], tmp_path / "source")


def test_what_is_checked_out_is_held_against_what_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "git").write_text(f"#!/bin/sh\necho {'2' * 40}\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(git.CheckoutError, match=f"expected the commit {'1' * 40}, seen {'2' * 40}"):
        git.checkout("file:///x", "1" * 40, tmp_path / "source")


def test_a_host_without_git_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(git.CheckoutError, match="expected git on the host"):
        git.checkout("file:///x", "1" * 40, tmp_path / "source")
