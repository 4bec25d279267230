"""The inputs of the playbooks: stated, complete, checked before anything else, and documented as stated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from helpers.playbook import run_playbook
from playbook_pages import (
    FLEET,
    NAMES,
    PAGE,
    PLAYBOOKS,
    ROLES,
    ROOT,
    defaults_text,
    options,
    own_text,
    page,
    role_options,
    roles,
)

READ = re.compile(r"(?<![.\w])([a-z]\w+) \| default\(")
WITH_DEFAULT = re.compile(r"\b([a-z]\w+) \| default\(('[^']*'|\[[^\]]*\]|true|false)[,)]")
FACTS = set(re.findall(r"^\| `(\w+)` \| fact \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_task_of_a_playbook_checks_its_inputs(name):
    play = yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text())[0]
    assert "roles" not in play and "pre_tasks" not in play and play["gather_facts"] is False
    assert play["tasks"][0] == {
        "name": "Check the inputs",
        "ansible.builtin.import_tasks": "tasks/inputs.yml",
        "vars": {"inputs": name},
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_a_playbook_reads_is_stated(name):
    of_roles = {option for role in roles(name) for option in role_options(role)}
    read = set(READ.findall(own_text(name)))
    assert read <= set(options(name)) | set(options(FLEET)) | FACTS | of_roles


def test_what_role_defaults_read_of_a_fleet_is_stated():
    text = "".join((path / "defaults/main.yml").read_text() for path in ROLES.iterdir())
    stated = set(options(FLEET)).union(*(options(name) for name in NAMES))
    assert set(re.findall(r"\bspark_\w+", text)) <= stated | FACTS


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stated_is_read(name):
    text = own_text(name) + defaults_text(name)
    assert [option for option in options(name) if not re.search(rf"\b{option}\b", text)] == []


def test_what_is_stated_of_the_fleet_is_read():
    text = "".join(defaults_text(name) for name in NAMES)
    assert [option for option in options(FLEET) if not re.search(rf"\b{option}\b", text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_an_input_wherever_it_is_loaded(name):
    assert ("spark_recipe" in options(name)) is ("recipe" in roles(name))


@pytest.mark.parametrize("name", [*NAMES, FLEET])
def test_a_stated_default_is_the_one_that_is_used(name):
    texts = "".join([*map(own_text, NAMES), *map(defaults_text, NAMES)])
    for option, spec in options(name).items():
        used = [yaml.safe_load(literal) for read, literal in WITH_DEFAULT.findall(texts) if read == option]
        assert "default" not in spec or not used or spec["default"] in used, option


def test_an_input_is_the_same_one_in_all_playbooks():
    seen: dict[str, tuple[str, dict]] = {}
    for name in [*NAMES, FLEET]:
        for option, spec in options(name).items():
            bare = {key: value for key, value in spec.items() if key != "description"}
            assert seen.setdefault(option, (name, bare))[1] == bare, (option, name, seen[option][0])


def test_the_page_says_what_the_specs_say():
    assert PAGE.read_text() == page(), "make docs"


INVENTORY = """
sparks: {hosts: {a: {ansible_connection: local}, b: {ansible_connection: local}}}
gateways: {hosts: {c: {ansible_connection: local}}}
"""


def run(tmp_path: Path, playbook: Path, **variables: object) -> str:
    """What a run says. The hosts would not survive a task that connects: there is no Python at this path."""
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    given = json.dumps({"ansible_python_interpreter": "/none", **variables})
    done = run_playbook("-i", "inventory.yml", playbook, "-e", given, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("site", {"spark_locked": "perhaps"}, "spark_locked"),
        ("drift", {"drift_verify": "twice"}, "value of drift_verify must be one of: stat, full"),
        ("tune", {"tune_depths": ["deep"]}, "Elements value for option 'tune_depths'"),
        ("lock", {"spark_registry_mirrors": {}}, "spark_registry_mirrors"),
    ],
)
def test_a_wrong_input_ends_a_run_before_anything_else(tmp_path, name, wrong, said):
    text = run(tmp_path, PLAYBOOKS / f"{name}.yml", **wrong)
    assert said in text
    assert re.findall(r"^TASK \[(.*?)\]", text, re.MULTILINE) == ["Check the inputs"]
    assert len(re.findall(r"^(?:fatal|failed): ", text, re.MULTILINE)) == 1, "once a run, not once a host"


@pytest.mark.parametrize("blank", [None, ""])
@pytest.mark.parametrize("name", ["site", "drift", "benchmark", "tune", "build"])
def test_a_blank_input_is_none(tmp_path, name, blank):
    """It goes as far as a run without any: to the first connection, or to the recipe's lock, which is not there."""
    asked = [option for option, spec in options(name).items() if not spec.get("required")]
    texts = [run(tmp_path, PLAYBOOKS / f"{name}.yml", **given) for given in ({}, dict.fromkeys(asked, blank))]
    plain, blanks = (re.findall(r"^TASK \[(.*?)\]|^\[ERROR\]: (.*)", text, re.MULTILINE) for text in texts)
    assert plain == blanks and len(plain) > 1


def test_a_playbook_that_another_one_imports_finds_its_inputs(tmp_path):
    (tmp_path / "mine.yml").write_text("- ansible.builtin.import_playbook: sparkfleet.vllm.stop\n")
    text = run(tmp_path, tmp_path / "mine.yml")
    assert re.findall(r"^TASK \[(.*?)\]", text, re.MULTILINE)[0] == "Check the inputs"
    assert re.search(r"^ok: \[a\]", text, re.MULTILINE) and "/none" in text
