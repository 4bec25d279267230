# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry for the time of one push, on the loopback and in its own directory.

Only a push makes every release of the engine pack layers, make a manifest and give the image a digest. `docker save` writes
another form in each release. The fleet's registry takes no pushes, so the image is then copied into its storage like one
from outside, with every byte verified.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START = 30.0
"""Seconds in which it has to answer."""


class StagingError(Exception):
    """The registry does not come up. The text says expected, seen and what to do."""


@contextmanager
def registry(program: str, directory: Path) -> Iterator[str]:
    """The registry's address, as host:port, while it runs. `directory` gets its configuration, its log and its `storage`.

    :raises StagingError: it does not answer
    """
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{_free_port()}"
    config = directory / "config.yml"
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(directory / "storage")},
                    "maintenance": {"uploadpurging": {"enabled": False}},
                },
                "http": {"addr": address, "secret": secrets.token_hex(16)},
            }
        )
    )
    log = directory / "log"
    try:
        with log.open("w") as file:
            # The registry serves while the engine pushes, so nobody waits for its end.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
    except OSError as error:
        raise StagingError(
            f"expected {program}, seen {error.strerror}; install the registry's package"
        ) from None
    try:
        _wait(process, address, log)
        yield address
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        if _answers(address):
            return
        time.sleep(0.1)
    said = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
    raise StagingError(
        f"expected a registry at {address}, seen: {said or 'no answer'}; run again, or read {log}"
    )
