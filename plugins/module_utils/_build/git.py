# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of a build on the host: one commit of a git repository, with the tags of the releases before it.

git names content by its hash, so a checkout of a commit is that commit. The history comes without its files: vLLM takes
its version from the last tag before the commit (setuptools-scm), and reads .git while it is built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "LC_ALL": "C",
    # git gives up after a minute below 1000 bytes a second.
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
}
WHOLE = str(2**31 - 1)
"""As a depth: all of the history."""


class CheckoutError(Exception):
    """The source cannot be fetched. The text says expected, seen and what to do."""


def checkout(url: str, commit: str, directory: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Put the commit into the directory, in place of whatever is there.

    :raises CheckoutError: no git, no such repository or commit, or something else came
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    say(f"source: fetching {url} at {commit[:12]}")

    def git(*arguments: str) -> str:
        return _git(url, commit, directory, arguments)

    git("init", "--quiet")
    git("remote", "add", "origin", url)
    # First the files of this commit. A plain file server cannot limit the depth, and refuses here. If the history came first,
    # git would request each file of it from such a server, with one process for each.
    git("fetch", "--quiet", "--depth=1", "origin", commit)
    git("fetch", "--quiet", f"--depth={WHOLE}", "--filter=tree:0", "--tags", "origin", commit)
    git("checkout", "--quiet", "--detach", commit)
    seen = git("rev-parse", "HEAD")
    if seen != commit:
        raise CheckoutError(
            f"{url}: expected the commit {commit}, seen {seen}; correct image.build of the recipe"
        )
    say(f"source: {git('describe', '--tags', '--always')}")


def _git(url: str, commit: str, directory: Path, arguments: tuple[str, ...]) -> str:
    try:
        # There is no AnsibleModule here, and none is wanted.
        run = subprocess.run(  # pylint: disable=ansible-bad-function
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            check=False,
        )
    except FileNotFoundError:
        raise CheckoutError(
            "expected git on the host, which fetches the source, seen none; install it"
        ) from None
    if run.returncode:
        said = " / ".join(run.stderr.split("\n")[-4:]).strip(" /")
        raise CheckoutError(
            f"{url}: expected the commit {commit}, seen: {said or f'exit status {run.returncode}'}; see that the host reaches "
            "that address (spark_git_endpoint) and that the repository has the commit (image.build of the recipe)"
        )
    return run.stdout.strip()
