# Copyright (c) the sparkfleet.vllm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the documentation site. A warning is an error.

    python docs/site/build.py [DIRECTORY]      default .cache/docs; the site is in its folder html

The pages are written for a Git host: their links name files of this repository. Here they are laid out as a site, with a
reference that antsibull-docs makes, and each link is pointed at the page that shows the file which it names.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import reference

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "reference"
NAMED = {
    "docs/(.+).md": r"\1.md",
    "roles/(.+)/README.md": r"roles/\1.md",
    "recipes/(.+).yml": r"recipes/\1.md",
    "roles/(.+)/meta/argument_specs.yml": rf"{REFERENCE}/\1_role.rst",
    "plugins/modules/(.+).py": rf"{REFERENCE}/\1_module.rst",
    "plugins/filter/(.+).yml": rf"{REFERENCE}/\1_filter.rst",
    "plugins/modules|plugins/filter": f"{REFERENCE}/index.rst",
    "playbooks/(.+).yml": r"playbooks.md#\1yml",
}
"""Which page of the site shows a file of the repository."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
ENTRY = re.compile(r"^- \[[^\]]+\]\(([^)#\s]+)\)", re.MULTILINE)


def page(path: str) -> str | None:
    """The page that shows a file or directory of the repository; None where none does."""
    for pattern, name in NAMED.items():
        if re.fullmatch(pattern, path):
            return re.sub(pattern, name, path)
    return None


def sources() -> dict[str, Path]:
    """The pages that are written by hand: ``{page: its file}``."""
    files = [*ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]
    return {str(page(str(file.relative_to(ROOT)))): file for file in sorted(files)}


def recipes() -> list[Path]:
    return sorted(ROOT.glob("recipes/*.yml"))


def pointed(text: str, file: Path, at: str) -> str:
    """A page's text with its links as they are on the site. What no page shows keeps its link, and Sphinx says so.

    :param file: where the text is written, which its links start from
    :param at: the page
    """

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(file.parent.relative_to(ROOT).as_posix(), match[1]))
        shown = page(target)
        if shown is None or not (ROOT / target).exists():
            return match[0]
        return posixpath.relpath(shown, posixpath.dirname(at) or ".") + (match[2] or "")

    return LINK.sub(link, text)


def contents(text: str) -> str:
    """The front page with its lists of pages as navigation: a caption for each heading."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        text += toctree(section.partition("\n")[0], ENTRY.findall(section))
    return text


def toctree(caption: str, pages: list[str]) -> str:
    return "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```\n"])


def lay_out(source: Path) -> None:
    """The hand-written pages, and one for each recipe."""
    for name, file in sources().items():
        text = pointed(file.read_text(), file, name)
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(contents(text) if name == "index.md" else text)
    for file in ROOT.glob("docs/*.json"):
        shutil.copy(file, source)
    (source / "recipes").mkdir()
    for file in recipes():
        shutil.copy(file, source / "recipes")
        (source / "recipes" / f"{file.stem}.md").write_text(
            f"# {file.stem}\n\n```{{literalinclude}} {file.name}\n:language: yaml\n```\n"
        )
    with (source / "recipes.md").open("a") as overview:
        overview.write(toctree("Recipes", [f"recipes/{file.stem}" for file in recipes()]))


def refer(folder: Path) -> None:
    """The reference of all that Ansible reads itself, by antsibull-docs."""
    # antsibull-docs insists that nobody else may write there.
    folder.mkdir(mode=0o700)
    run(
        *("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"),
        *("--dest-dir", folder, reference.COLLECTION),
    )
    # There are no environment variables to list.
    (folder / "environment_variables.rst").unlink()
    for file in sorted(folder.glob("*.rst")):
        text, role = file.read_text(), file.stem.removesuffix("_role")
        try:
            if file.stem == "index":
                text = reference.index(text)
            elif file.stem == role:
                text = reference.plugin(text)
            else:
                text = reference.role(text, role)
        except reference.Unexpected as error:
            raise SystemExit(f"{file}: {error}; see what antsibull-docs writes now") from error
        file.write_text(text)


def run(*command: str | Path) -> None:
    """A program of this environment, with this checkout as the collection."""
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": here + os.pathsep + os.environ["PATH"],
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
    }
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def build(output: Path) -> Path:
    """The site in a directory, made anew. Returns where its first page is."""
    source, html, doctrees = (output / name for name in ("source", "html", "doctrees"))
    for made in (source, html, doctrees):
        shutil.rmtree(made, ignore_errors=True)
    source.mkdir(parents=True)
    lay_out(source)
    refer(source / REFERENCE)
    run(
        *(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--jobs", "auto"),
        *("--conf-dir", Path(__file__).parent, "--doctree-dir", doctrees, source, html),
    )
    return html / "index.html"


if __name__ == "__main__":
    try:
        print(build(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT / ".cache/docs"))
    except subprocess.CalledProcessError as failed:
        raise SystemExit(f"{failed.cmd[0]} failed") from failed
