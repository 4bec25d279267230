"""The process beside a run: what it does while the run lives, and after."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import keeper as run_keeper
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import this_run
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.keeper import DONE, FAILED, LOST


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


class Ends:
    """A run that ends after so many looks; each look takes no time."""

    def __init__(self, looks):
        self.looks, self.waits = looks, []

    def over(self, seconds):
        if seconds == 0.1:  # while an errand is under way
            time.sleep(0.01)
            return False
        self.waits.append(seconds)
        self.looks -= 1
        return self.looks < 0


class Over:
    """A run that has ended."""

    def over(self, seconds):
        return True


@pytest.fixture
def book(tmp_path):
    """What was done, in order: errands run in processes of their own."""
    path = tmp_path / "book"
    path.touch()

    class Book:
        def note(self, name, *answers):
            def errand():
                done = path.read_text().split()
                with path.open("a") as file:
                    file.write(f"{name}\n")
                answer = answers[min(done.count(name), len(answers) - 1)] if answers else DONE
                if answer == "hangs":
                    subprocess.run(["sh", "-c", f"sleep 3; echo late >> {path}"], check=False)
                    return DONE
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return errand

        def read(self):
            return path.read_text().split()

    return Book()


def keep(book, looks, renew=(), release=()):
    watch = Ends(looks)
    renew, release = book.note("renew", *renew), book.note("release", *release)
    run_keeper.keep(watch, renew, release, book.note("reset"), 30.0)  # type: ignore[arg-type]
    return watch.waits


def test_it_renews_while_the_run_lives_and_releases_after_it(book):
    assert keep(book, 2) == [30, 30, 30]
    assert book.read() == ["renew", "renew", "release"]


def test_a_lock_that_is_lost_is_neither_renewed_nor_released(book):
    keep(book, 5, renew=[DONE, LOST])
    assert book.read() == ["renew", "renew"]


@pytest.mark.parametrize("fails", [FAILED, OSError("unreachable")])
def test_a_host_that_is_away_is_tried_again_soon_on_a_new_connection(book, fails):
    assert keep(book, 3, renew=[fails, fails, DONE]) == [30, 5, 5, 30]
    assert book.read() == ["renew", "reset", "renew", "reset", "renew", "release"]


def test_the_last_word_is_tried_a_few_times(book):
    keep(book, 0, release=[FAILED, DONE])
    assert book.read() == ["release", "reset", "release"]


def test_it_gives_up_in_the_end(book):
    keep(book, 0, release=[FAILED])
    assert book.read().count("release") == run_keeper.FAREWELL


def test_an_errand_that_hangs_is_ended_with_what_it_started(book, monkeypatch):
    monkeypatch.setattr(run_keeper, "ANSWER", 0.3)
    assert keep(book, 2, renew=["hangs", DONE]) == [30, 5, 30]
    time.sleep(3.5)
    assert book.read() == ["renew", "reset", "renew", "release"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_end_of_the_run_is_not_kept_waiting_by_an_errand_that_hangs(book, monkeypatch):
    monkeypatch.setattr(run_keeper, "ANSWER", 1e9)
    own, make_group = os.getpid(), os.setpgid

    def slow_child(*what):
        if os.getpid() != own:
            time.sleep(0.3)
        make_group(*what)

    monkeypatch.setattr(os, "setpgid", slow_child)
    assert run_keeper._attempt(book.note("renew", "hangs"), None, Over()) == FAILED  # type: ignore[arg-type]
    time.sleep(3.5)
    assert "late" not in book.read()


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("pidfd", [True, False])
def test_the_end_of_a_process_is_seen_while_nobody_has_waited_for_it(sleeper, monkeypatch, pidfd):
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    watch = run_keeper.Watch(sleeper.pid, this_run.started(sleeper.pid))
    assert watch.over(0.01) is False
    sleeper.kill()
    assert watch.over(30) is True
    assert run_keeper.Watch(sleeper.pid, "another start").over(30) is True


HOLD = """
import signal, sys, time
from functools import partial
from pathlib import Path
sys.path[:0] = {path!r}
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils import keeper
folder, pid, start = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def write(name):
    (folder / name).write_text(str(time.monotonic()))
    print("noise")
    return 0
keeper.hold(pid, start, partial(write, "renewed"), partial(write, "released"), lambda: None, 0.05)
"""


def test_a_keeper_outlives_its_worker_holds_nothing_open_and_minds_no_signal(tmp_path, sleeper):
    code, start = HOLD.format(path=sys.path), this_run.started(sleeper.pid)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(sleeper.pid), start],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")
    until((tmp_path / "renewed").exists)
    (keeper,) = with_argument(str(tmp_path))
    for number in (15, 2, 1):
        os.kill(keeper, number)
    (tmp_path / "renewed").unlink()
    until((tmp_path / "renewed").exists)
    assert os.getsid(keeper) not in (os.getsid(0), os.getsid(sleeper.pid))
    assert not (tmp_path / "released").exists()
    sleeper.kill()
    until((tmp_path / "released").exists)
    until(lambda: not with_argument(str(tmp_path)))


def with_argument(text):
    """Leaders of their own session whose command line holds `text`."""
    found = subprocess.run(["pgrep", "-f", text], capture_output=True, text=True, check=False).stdout.split()
    return [
        int(pid) for pid in found if os.path.exists(f"/proc/{pid}") and _session(int(pid)) != os.getsid(0)
    ]


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return os.getsid(0)
