"""How roles are written: each reads its own variables, facts enter by its defaults, and YAML computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.playbook import run_playbook
from helpers.recipe import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
OPTIONS = {
    role: {
        option
        for spec in yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())[
            "argument_specs"
        ].values()
        for option in spec["options"]
    }
    for role in ROLES
}
# Keywords whose text is an expression as a whole.
EXPRESSIONS = {"when", "that", "until", "failed_when", "changed_when", "loop"}
NAME = re.compile(r"(?<![\w.])_{0,2}[a-z]\w*")
COMPUTING = re.compile(
    r"\| (map|select|reject|selectattr|rejectattr|zip|zip_longest|combine|flatten|subelements|product|groupby|dict2items|items2dict"
    r"|dictsort|sum|union|difference|symmetric_difference|intersect|unique|sort|batch|slice|json_query)\b|\b(dict|range)\("
)
# What a task may put together all the same.
COMPOSED = [
    # A failure with the name of its task, and with why the host went back.
    r"ansible_failed_result \| combine\(\{'task': ansible_failed_task\.name\}\)",
    r"ansible_failed_result \| combine\(\{'task': ansible_failed_task\.name\}, rollout_refusal, "
    r"\{'msg': ansible_failed_result\.msg \| default\('see above'\)\}\)",
    # What a role has found beside what others have.
    r"(\w+)_drift \| combine\(\{'\1': __\1_drift\.drift\}\)",
    # The lock of the file with what of its patches is on the controller.
    r"__recipe_locked\.lock \| combine\(\{'patches': __recipe_locked\.patches\}\)",
    # Those of the models that the plan has for this host.
    r"model_sync_models\.values\(\) \| selectattr\('commit', 'in', __model_sync_planned\.\w+\)",
    # The inputs of a playbook beside those of the fleet.
    r"fleet\.options \| combine\(\(lookup\([^()|]*\) \| from_yaml\)\.argument_specs\[inputs\]\.options\)",
]
# Gives the objects of an automation controller to modules that are not ours.
NOT_OURS = {ROOT / "playbooks/tasks/controller.yml"}


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(keyword, text) of all that a YAML value holds, keys left out."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from texts(entry, str(name))
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry, key)
    elif isinstance(value, str):
        yield key, value


def expressions(value: Any) -> Iterator[str]:
    for key, text in texts(value):
        if key in EXPRESSIONS and "{{" not in text:
            yield text
        yield from re.findall(r"\{\{(.*?)\}\}(?!\})|\{%.*?%\}", text, re.DOTALL)


def tasks(value: Any) -> Iterator[dict[str, Any]]:
    """Every task and block of a list of tasks."""
    for task in value or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part))


def files(role: str, *parts: str) -> list[Path]:
    return sorted(
        path for part in parts for path in (ROOT / "roles" / role / part).glob("*") if path.is_file()
    )


def of(name: str) -> str:
    """The role that a variable is of; empty for what is of none."""
    bare = name.lstrip("_")
    private = name.startswith("__")
    for role in sorted(ROLES, key=len, reverse=True):
        if (private and bare.startswith(f"{role}_")) or name in OPTIONS[role]:
            return role
    return ""


def read(path: Path) -> set[str]:
    """Names that the expressions of a file read."""
    text = path.read_text()
    if path.suffix == ".j2":
        found = re.findall(r"\{\{(.*?)\}\}|\{%(.*?)%\}", text, re.DOTALL)
        return {name for pair in found for part in pair for name in NAME.findall(part)}
    return {
        name
        for each in expressions(yaml.safe_load(text))
        for name in NAME.findall(re.sub(r"'[^']*'", "''", each))
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_no_variable_of_another(role: str) -> None:
    for path in files(role, "tasks", "defaults", "vars", "templates", "handlers"):
        assert {name for name in read(path) if of(name) not in ("", role)} == set(), path


@pytest.mark.parametrize("role", ROLES)
def test_a_role_sets_no_variable_of_another_but_the_options_of_one_that_it_includes(role: str) -> None:
    for path in files(role, "tasks"):
        for task in tasks(yaml.safe_load(path.read_text())):
            fact = task.get("ansible.builtin.set_fact") or {}
            assert [name for name in [*fact, task.get("register", "")] if of(name) not in ("", role)] == [], (
                path
            )
            included = (
                task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role") or {}
            ).get("name", "")
            allowed = OPTIONS.get(included.rpartition(".")[2], set())
            strange = [
                name for name in task.get("vars") or {} if of(name) not in ("", role) and name not in allowed
            ]
            assert strange == [], path


@pytest.mark.parametrize("role", ROLES)
def test_facts_and_what_describes_a_fleet_enter_a_role_by_its_defaults(role: str) -> None:
    for path in files(role, "tasks", "vars", "templates", "handlers"):
        handed = {name for name in read(path) if re.match(r"(spark_|recipe$|recipe_lock$)", name)}
        assert handed == set(), path


@pytest.mark.parametrize("role", ROLES)
def test_an_input_of_a_playbook_enters_a_role_by_its_options(role: str) -> None:
    """What describes a fleet begins with spark_ and enters by the defaults; all else, the playbook gives to the role."""
    inputs = {
        name
        for path in (ROOT / "playbooks").glob("*.meta.yml")
        for spec in yaml.safe_load(path.read_text())["argument_specs"].values()
        for name in spec["options"]
        if not name.startswith("spark_")
    }
    assert len(inputs) > 5
    for path in files(role, "tasks", "defaults", "vars", "templates", "handlers"):
        assert read(path) & inputs == set(), path


def in_tasks() -> Iterator[tuple[Path, str]]:
    """(file, expression) of all tasks of roles and playbooks."""
    of_roles = [path for role in ROLES for path in files(role, "tasks")]
    for path in {*of_roles, *(ROOT / "playbooks").rglob("*.yml")} - NOT_OURS:
        for each in expressions(yaml.safe_load(path.read_text())):
            yield path, " ".join(each.split())


def test_a_task_computes_nothing() -> None:
    for path, text in in_tasks():
        left = text
        for composed in COMPOSED:
            left = re.sub(composed, "", left)
        assert not COMPUTING.search(left), (path, text)


@pytest.mark.parametrize("composed", COMPOSED)
def test_what_a_task_may_put_together_is_put_together_somewhere(composed: str) -> None:
    assert any(re.search(composed, text) for _, text in in_tasks())


def test_no_key_of_a_task_stands_twice() -> None:
    """Nor one in place of a merged one: Ansible warns of it in every run."""
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]:
        pending = [yaml.compose(path.read_text())]
        while pending:
            node = pending.pop()
            if isinstance(node, yaml.MappingNode):
                merged = [value for key, value in node.value if key.value == "<<"]
                names = [key.value for each in [node, *merged] for key, _ in each.value if key.value != "<<"]
                assert len(names) == len(set(names)), (path, names)
                pending += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                pending += node.value


def test_yaml_reads_no_text_by_a_pattern_and_holds_no_statements() -> None:
    of_roles = [path for role in ROLES for path in files(role, "tasks", "defaults", "vars")]
    for path in {*of_roles, *(ROOT / "playbooks").rglob("*.yml")}:
        assert re.findall(r"\bregex_\w+|\{%", path.read_text()) == [], path


@pytest.mark.parametrize("role", ROLES)
def test_only_an_entry_point_imports_tasks(role: str) -> None:
    """What an imported or included file imports in its turn is looked for in the user's own tasks/, too: a file of the same name there
    would run in its place. What is included is looked for in the role first.
    """
    texts_of = {path.stem: path.read_text() for path in files(role, "tasks")}
    brought = {
        name
        for text in texts_of.values()
        for name in re.findall(r"_tasks: (\w+)\.yml|file: (\w+)\.yml", text)
        for name in name
    }
    entries = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]
    importing = {name for name, text in texts_of.items() if "import_tasks:" in text}
    assert importing - set(entries) == set()
    assert importing & brought == set()


def leading_play(role: str) -> str:
    """The play that the README of a role begins with, after a sentence or two."""
    text = (ROOT / f"roles/{role}/README.md").read_text()
    found = re.match(r"# (\w+)\n\n(?:[^\n|#]+\n)+\n```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found and found[1] == role, f"{role}: no play after the first paragraph of its README"
    return found[2]


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_of_a_role_begins_with_a_play_that_uses_it(role: str) -> None:
    (play,) = yaml.safe_load(leading_play(role))
    assert f"sparkfleet.vllm.{role}" in leading_play(role)
    assert play["gather_facts"] is False
    for name, option in texts(play):
        assert of(name) in ("", role) or name in OPTIONS[of(name)], option


def test_ansible_takes_the_plays_of_the_readmes(tmp_path: Path) -> None:
    (tmp_path / "plays.yml").write_text("".join(leading_play(role) for role in ROLES))
    done = run_playbook("--inventory=localhost,", "--syntax-check", tmp_path / "plays.yml", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "duplicate mapping key" not in done.stdout + done.stderr, done.stderr


def test_what_roles_hand_on_is_in_the_table_with_who_makes_it() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| fact \| ([^|]*) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    stated = {name: set(re.findall(r"`(\w+)`", made)) for name, made in rows}
    made: dict[str, set[str]] = {}
    for role in ROLES:
        for path in files(role, "tasks"):
            for task in tasks(yaml.safe_load(path.read_text())):
                for name in [*(task.get("ansible.builtin.set_fact") or {}), task.get("register", "")]:
                    if re.match(r"(spark_|recipe$|recipe_lock$)", name):
                        made.setdefault(name, set()).add(role)
    assert made.keys() <= stated.keys()
    for name, by in made.items():
        assert by <= stated[name] or name == "spark_drift", (name, by, stated[name])
    assert [name for name in stated if name not in made] == []


def registered(value: Any, skippable: bool = False) -> Iterator[tuple[str, bool]]:
    """(variable, whether its task may be skipped) of all tasks."""
    for task in value or []:
        here = skippable or "when" in task
        if "register" in task:
            yield task["register"], here
        for part in ("block", "rescue", "always"):
            yield from registered(task.get(part), here)


@pytest.mark.parametrize("role", ROLES)
def test_what_several_tasks_register_is_registered_by_none_that_may_be_skipped(role: str) -> None:
    """A task that is skipped registers that it was, over what another one has found. A file that is not included does not."""
    every = [entry for path in files(role, "tasks") for entry in registered(yaml.safe_load(path.read_text()))]
    names = [name for name, _ in every]
    assert [name for name, skippable in every if skippable and names.count(name) > 1] == []


def test_a_key_that_is_fetched_by_default_has_a_checksum() -> None:
    fetched = [
        value
        for role in ROLES
        for value in (yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()) or {}).values()
        if isinstance(value, dict) and "key_url" in value
    ]
    assert fetched
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each.get("key_checksum", "")) for each in fetched)
