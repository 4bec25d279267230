"""The release: what is in the archive, and that it works where it is installed, with nothing of the checkout in reach."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible.release import __version__ as ansible_version
from helpers.hub import lab_hub
from helpers.recipe import BODY, DRAFT, ROOT, depot
from packaging.specifiers import SpecifierSet
from playbook_pages import NAMES

# What git tracks and a user of the collection does not need.
LEFT_OUT = [
    ".*",
    "CONTRIBUTING.md",
    "LICENSES/*",
    "Makefile",
    "REUSE.toml",
    "ansible.cfg",
    "changelogs/*",
    "docs/site/*",
    "galaxy.yml",
    "inventory/lab/*",
    "molecule/*",
    "pyproject.toml",
    "requirements/dev.*",
    "requirements/newest.*",
    "requirements/tests.in",
    "tests/*",
    "tools/*",
]
# What lies about in a checkout that is worked in.
JUNK = [
    ".venv/bin/python",
    ".cache/lab/ssh/id_ed25519",
    ".cache/ansible/galaxy_token",
    ".mypy_cache/3.11/x.json",
    ".pytest_cache/v/cache/lastfailed",
    "plugins/modules/__pycache__/recipe_load.cpython-311.pyc",
    "plugins/.ruff_cache/x",
    "roles/recipe/tasks/main.yml~",
    "roles/recipe/tasks/main.yml.orig",
    "roles/recipe/tasks/.main.yml.swp",
    "drift/drift.json",
    "benchmark/benchmark.html",
    "tune/tune.json",
    "docs/_build/index.html",
    "execution-environment/context/Containerfile",
    "execution-environment/sparkfleet-vllm-0.1.0.tar.gz",
    "inventory/mine/group_vars/sparks/vault.yml",
    "inventory/spark-2/hosts.yml",
    "inventory/sites.yml",
    "inventory/locks/huihui-gemma4-mtp-n1.lock.yml",
    "inventory/lab-locks/huihui-gemma4-mtp-n1.lock.yml",
    "inventory/recipes/ours.yml",
    "sparkfleet-vllm-0.0.1.tar.gz",
    "backup.tar.gz",
]


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [name for name in done.split("\0") if name and (ROOT / name).exists()]


class User:
    """Somebody with ansible-core, an empty collections path and a directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.collections = folder / "home", folder / "collections"
        self.vllm = self.collections / "ansible_collections" / "sparkfleet" / "vllm"
        self.home.mkdir(parents=True)
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "HF_"))
        } | {
            "HOME": str(self.home),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_INJECT_FACT_VARS": "false",
        }

    def run(self, program: str, *arguments: str | Path, cwd: Path | None = None) -> tuple[str, str]:
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=cwd or self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what is tracked, with junk beside it."""
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    for name in JUNK:
        assert not (tree / name).exists()
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("junk\n")
    link = tree / ".cache/collections/ansible_collections/sparkfleet/vllm"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../..")
    out = folder / "out"
    User(folder).run("ansible-galaxy", "collection", "build", "--output-path", out, cwd=tree)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def user(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """One who has installed it. Dependencies are the ones that come with Ansible: no server is asked."""
    user = User(tmp_path_factory.mktemp("user"))
    user.run("ansible-galaxy", "collection", "install", "--offline", archive)
    return user


def test_the_archive_holds_what_is_tracked_and_of_use_and_nothing_else(archive):
    with tarfile.open(archive) as opened:
        held = {member.name for member in opened if not member.isdir()} - {"MANIFEST.json", "FILES.json"}
    wanted = {name for name in tracked() if not any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT)}
    assert held - wanted == set(), "not tracked, or of no use to a user: galaxy.yml, build_ignore"
    assert wanted - held == set()


@pytest.mark.parametrize("pattern", LEFT_OUT)
def test_what_is_left_out_is_there(pattern):
    assert fnmatch.filter(tracked(), pattern)


ADDRESSES = {"repository", "issues", "documentation", "homepage"}


def test_its_addresses_are_all_there_or_none_is(archive):
    with tarfile.open(archive) as opened:
        manifest = opened.extractfile("MANIFEST.json")
        assert manifest
        info = json.load(manifest)["collection_info"]
    named = {key: info[key] for key in ADDRESSES if info.get(key)}
    assert set(named) in (set(), ADDRESSES), "docs/releasing.md says what each is"
    assert all(re.fullmatch(r"https://(?!.*\bexample\b)\S+", address) for address in named.values()), named
    skipped = yaml.safe_load((ROOT / ".ansible-lint").read_text()).get("skip_list", [])
    assert ("galaxy[no-repository]" in skipped) is (not named)


def test_every_module_filter_and_role_is_documented_where_it_is_installed(user):
    told, complaints = user.run("ansible-doc", "--metadata-dump", "--no-fail-on-errors", "sparkfleet.vllm")
    # Ansible 2.21 says this of a part of its own.
    assert [line for line in complaints.splitlines() if "_protomatter" not in line] == []
    pages = json.loads(told)["all"]
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    filters = {path.stem for path in (ROOT / "plugins/filter").glob("*.yml")}
    roles = {path.name for path in (ROOT / "roles").iterdir()}
    for kind, names in (("module", modules), ("filter", filters), ("role", roles)):
        assert set(pages[kind]) == {f"sparkfleet.vllm.{name}" for name in names}
    for name, page in (pages["module"] | pages["filter"]).items():
        assert page.get("doc", {}).get("short_description"), (name, page)
    for name in roles:
        specs = yaml.safe_load((ROOT / "roles" / name / "meta/argument_specs.yml").read_text())
        page = pages["role"][f"sparkfleet.vllm.{name}"]
        assert set(page.get("entry_points", {})) == set(specs["argument_specs"]), page


def test_its_runtime_is_what_it_says(user):
    runtime = yaml.safe_load((user.vllm / "meta/runtime.yml").read_text())
    modules = sorted(path.stem for path in (user.vllm / "plugins/modules").glob("*.py"))
    assert runtime["action_groups"]["vllm"] == modules
    supported = SpecifierSet(runtime["requires_ansible"])
    assert ansible_version in supported and "2.19.0" in supported and "2.18.99" not in supported
    assert "ansible-core 2.19 or newer" in (user.vllm / "README.md").read_text()
    for path in user.vllm.glob("roles/*/meta/main.yml"):
        assert yaml.safe_load(path.read_text())["galaxy_info"]["min_ansible_version"] == "2.19", path


def test_every_playbook_is_found_by_its_name_and_parses(user, tmp_path):
    shutil.copytree(user.vllm / "inventory/spark", tmp_path / "mine")
    names = [f"sparkfleet.vllm.{name}" for name in NAMES]
    told, _ = user.run("ansible-playbook", "-i", "mine", "--syntax-check", *names, cwd=tmp_path)
    assert re.findall(r"^playbook: (.*)$", told, re.M) == [
        str(user.vllm / f"playbooks/{name}.yml") for name in NAMES
    ]


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_what_its_pages_link_to_is_in_it(user):
    pages = [path for path in user.vllm.rglob("*.md") if "](" in path.read_text()]
    assert user.vllm / "README.md" in pages
    targets = [
        (path, link, (path.parent / link).resolve())
        for path in pages
        for link in LINK.findall(path.read_text())
        if "://" not in link
    ]
    broken = [
        f"{path.relative_to(user.vllm)}: {link}"
        for path, link, target in targets
        if not (target.exists() and target.is_relative_to(user.vllm.resolve()))
    ]
    assert len(targets) > 40
    assert broken == []


def content(tree: Path) -> dict[str, str]:
    """Digest of every file. Python keeps what it has compiled beside its source, if it may."""
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.parametrize("inventory", ["fleet/hosts.yml", "fleet"])
def test_locks_and_caches_of_a_user_are_never_in_the_collection(user, tmp_path, inventory):
    beside = tmp_path / "fleet" if inventory.endswith(".yml") else tmp_path
    (beside / "recipes").mkdir(parents=True)
    (tmp_path / "fleet").mkdir(exist_ok=True)
    (beside / "recipes/ours.yml").write_text("name: ours\nextends: huihui-gemma4-mtp-n1\n")
    before = content(user.vllm)
    with lab_hub(tmp_path / "hub") as hub, depot() as server:
        hub.add(BODY, {"config.json": b"{}"})
        hub.add(DRAFT, {"config.json": b"{}"}, commit="d" * 40)
        variables = {
            "spark_hub_endpoint": hub.url,
            "spark_raw_endpoint": f"{server.url}/raw",
            "spark_registry_mirrors": [server.url],
        }
        hosts = {"sparks": {"hosts": {"one": {"ansible_host": "192.0.2.1"}}, "vars": variables}}
        (tmp_path / "fleet/hosts.yml").write_text(yaml.safe_dump(hosts))
        for recipe in ("huihui-gemma4-mtp-n1", "ours"):
            told, _ = user.run(
                "ansible-playbook", "-i", inventory, "sparkfleet.vllm.lock", "-e", f"spark_recipe={recipe}",
                cwd=tmp_path,
            )  # fmt: skip
            assert f"{recipe}.lock.yml written" in told
    assert content(user.vllm) == before
    assert (beside / "locks/huihui-gemma4-mtp-n1.lock.yml").is_file()
    assert (beside / "recipes/ours.lock.yml").is_file()
    assert list((user.home / ".cache/sparkfleet/patches").glob("*/gemma4_mtp.py"))
