"""The documentation site, built as `make docs` builds it: what is in it, what leads where, and what it loads."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
WRITTEN = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("roles/*/README.md")),
]
MADE_BY_SPHINX = {"search.html", "genindex.html"}
ROUTING = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["plugin_routing"]["modules"]
FORMER = {f"reference/{name}_module.html" for name, route in ROUTING.items() if "redirect" in route}
"""For whoever comes with a former name: they lead to the page of today."""
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")
# What a browser fetches by itself. A link that a person follows is none of it.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "embed": "src"}
FETCHING = {
    "stylesheet",
    "icon",
    "shortcut icon",
    "preload",
    "prefetch",
    "preconnect",
    "modulepreload",
    "manifest",
}


class Page(HTMLParser):
    """Ids, links, and what is loaded, of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.ids |= {named[name] for name in ("id",) if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        if LOADED.get(tag) in named:
            self.loaded.append(named[LOADED[tag]])
        if tag == "link" and named.get("rel") in FETCHING:
            self.loaded.append(named["href"])
        if "style" in named:
            self.loaded += re.findall(r"url\(([^)]*)\)", named["style"])


class Site:
    def __init__(self, html: Path) -> None:
        self.html = html
        paths = sorted(html.rglob("*.html"))
        self.pages = {
            path.relative_to(html).as_posix(): Page(path) for path in paths if "_static" not in path.parts
        }

    def targets(self, name: str) -> Iterator[tuple[str, str, str]]:
        """The links of a page that stay on the site: as written, the file they lead to, and the anchor."""
        for link in self.pages[name].links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _mark, anchor = link.partition("#")
            yield (
                link,
                posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), unquote(path) or posixpath.basename(name))
                ),
                anchor,
            )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    output = tmp_path_factory.mktemp("docs-site")
    command = [sys.executable, str(ROOT / "docs/site/build.py"), str(output)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return Site(output / "html")


def test_every_page_and_everything_that_ansible_reads_is_on_it(site):
    expected = {f"{path.stem}.html" for path in ROOT.glob("docs/*.md")}
    expected |= {f"roles/{name}.html" for name in ROLES} | {f"reference/{name}_role.html" for name in ROLES}
    expected |= {f"reference/{path.stem}_module.html" for path in ROOT.glob("plugins/modules/*.py")}
    expected |= {f"reference/{path.stem}_filter.html" for path in ROOT.glob("plugins/filter/*.yml")}
    expected |= {f"recipes/{path.stem}.html" for path in ROOT.glob("recipes/*.yml")}
    assert len(expected) > 80
    assert expected - set(site.pages) == set()


def test_every_playbook_has_a_section(site):
    playbooks = {path.stem for path in ROOT.glob("playbooks/*.yml") if ".meta" not in path.name}
    assert {f"{name}-yml" for name in playbooks} - site.pages["playbooks.html"].ids == set()


def test_every_page_is_reached_from_the_first(site):
    reached, new = set(), {"index.html"}
    while new:
        reached |= new
        new = {
            target for name in new for _link, target, _anchor in site.targets(name) if target in site.pages
        } - reached
    assert set(site.pages) - reached - MADE_BY_SPHINX - FORMER == set()


def test_every_link_and_anchor_resolves(site):
    broken = [
        f"{name}: {link}"
        for name in site.pages
        for link, target, anchor in site.targets(name)
        if not (site.html / target).is_file()
        or (anchor and target in site.pages and anchor not in site.pages[target].ids)
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("page", "target"),
    [
        ("roles/vllm_serve.html", "roles/rollout.html"),
        ("roles/vllm_serve.html", "reference/vllm_serve_role.html"),
        ("reference/vllm_serve_role.html", "roles/vllm_serve.html"),
        ("roles/model_sync.html", "drift.html"),
        ("recipes.html", "reference/serve_validate_module.html"),
        ("recipes.html", "recipes/gemma4-mtp-n4.html"),
        ("index.html", "reference/index.html"),
    ],
)
def test_a_link_to_a_file_of_the_repository_leads_to_the_page_that_shows_it(site, page, target):
    assert target in {seen for _link, seen, _anchor in site.targets(page)}


@pytest.mark.parametrize("role", ROLES)
def test_no_parameter_of_a_role_is_lost_where_entry_points_share_it(site, role):
    """In full at main, and a place to point at everywhere else."""
    specs = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    ids = site.pages[f"reference/{role}_role.html"].ids
    names = {
        f"{role}_role__parameter-{entry}__{option}"
        for entry, spec in specs.items()
        for option in spec.get("options", {})
    }
    slugs = {f"ansible-collections-sparkfleet-vllm-{re.sub('[^a-z0-9]+', '-', name)}" for name in names}
    assert slugs - ids == set()
    assert {f"parameter-main--{option}" for option in specs["main"].get("options", {})} - ids == set()


def test_the_reference_does_not_send_people_to_where_the_collection_is_not(site):
    pages = [name for name in site.pages if name.startswith("reference/")]
    assert [name for name in pages if "galaxy" in (site.html / name).read_text().lower()] == []


def test_nothing_is_loaded_from_elsewhere(site):
    """No font, script, style or picture of another host, by the pages or by what they load."""
    loaded = [(name, url) for name, page in site.pages.items() for url in page.loaded]
    assert len(loaded) > len(site.pages)
    for path in site.html.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        loaded += [
            (path.name, url)
            for url in re.findall(r"url\(([^)]*)\)|@import\s+([^;]+)", text)
            for url in url
            if url
        ]
    foreign = [(name, url) for name, url in loaded if re.match(r"""['"]?\s*(?:[a-z]+:)?//""", url)]
    assert foreign == []
    # Scripts that are in a page itself: the theme's counters and advertisements would be there.
    texts = (
        (name, re.findall(r"<script[^>]*>(.*?)</script>", (site.html / name).read_text(), re.DOTALL))
        for name in site.pages
    )
    assert [name for name, scripts in texts if re.search(r"https?://|//\w+\.", "".join(scripts))] == []


def slugs(text: str) -> set[str]:
    """Anchors of headings, as a Git host makes them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,6} (.+)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_hold_on_a_git_host_too(page):
    broken = []
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in slugs(file.read_text())):
            broken.append(f"{target}#{anchor}")
    assert broken == []
