"""What an automation controller is given: held against the playbooks, against awx.awx, against what a controller would refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from helpers.controller import Controller, serving
from helpers.playbook import run_playbook
from playbook_pages import (
    FLEET,
    NAMES,
    PLAYBOOKS,
    ROOT,
    defaults_text,
    options,
    own_text,
    role_options,
    roles,
)

DATA = ROOT / "controller"
GIVEN: dict[str, Any] = {
    "spark_controller_project_url": "https://git.example.com/sparks.git",
    "spark_controller_image": "registry.example.com/sparkfleet-ee:1",
    "spark_controller_canary": "spark-1",
    "spark_controller_credentials": ["ssh"],
    "spark_controller_project_credential": "git",
    "spark_controller_image_credential": "registry",
}
MODULES = {
    "controller_execution_environments": "execution_environment",
    "controller_projects": "project",
    "controller_inventories": "inventory",
    "controller_inventory_sources": "inventory_source",
    "controller_credential_types": "credential_type",
    "controller_templates": "job_template",
    "controller_workflows": "workflow_job_template",
}
NODE = "workflow_job_template_node"
RELEASE = int(metadata.version("ansible").split(".")[0])
needs_awx = pytest.mark.skipif(RELEASE >= 14, reason="awx.awx does not come with ansible 14")
# awx/api/views: JobTemplateSurveySpec.ALLOWED_TYPES, of AWX 24.6.1
CHOICES = {"multiplechoice", "multiselect"}
TYPES = {"text", "textarea", "password", "integer", "float"} | CHOICES
QUESTION = {"type": str, "question_name": str, "variable": str, "required": bool}
OPTIONAL = {"question_description", "default", "min", "max", "choices"}


class Loader(yaml.SafeLoader):
    """Reads what Ansible reads: !unsafe is a text that is not a template."""


class Unsafe(str):
    pass


Loader.add_constructor("!unsafe", lambda _loader, node: Unsafe(node.value))


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((DATA / name).read_text(), Loader)
    return loaded


def filled(value: Any, settings: dict[str, Any]) -> Any:
    """With the settings in their places. Every template is one setting and nothing else, so that a list stays a list."""
    if isinstance(value, dict):
        return {key: filled(entry, settings) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, settings) for entry in value]
    if isinstance(value, str) and not isinstance(value, Unsafe) and "{{" in value:
        return settings[value.removeprefix("{{ ").removesuffix(" }}").removesuffix(" | default(omit, true)")]
    return value


@cache
def stated() -> dict[str, list[dict[str, Any]]]:
    settings = read("settings.yml") | GIVEN | {"not ansible_check_mode": True}
    kinds: dict[str, Any] = {}
    for name in ("places.yml", "credential_types.yml", "templates.yml"):
        kinds |= filled(read(name), settings)
    return {kind: kinds[kind] for kind in MODULES}


def template(name: str) -> dict[str, Any]:
    return next(one for one in stated()["controller_templates"] if one["name"] == name)


def played(one: dict[str, Any]) -> str:
    """The playbook of a template, without the name of the collection."""
    name: str = one["playbook"]
    return name.removeprefix("sparkfleet.vllm.")


def nodes() -> dict[str, dict[str, Any]]:
    (workflow,) = stated()["controller_workflows"]
    return {node["identifier"]: node for node in workflow["simplified_workflow_nodes"]}


def after(node: dict[str, Any]) -> list[str]:
    return [*node.get("success_nodes", []), *node.get("failure_nodes", [])]


@cache
def awx() -> dict[str, dict[str, Any]]:
    """Options of the modules, as awx.awx documents them."""
    names = [f"awx.awx.{module}" for module in [*MODULES.values(), NODE]]
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", *names]
    pages = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {name: pages[f"awx.awx.{name}"]["doc"]["options"] for name in [*MODULES.values(), NODE]}


def problems(module: str, item: dict[str, Any]) -> list[str]:
    """What the module would say of these options, before it asks a controller anything."""
    kept = ("type", "required", "choices", "elements", "aliases")
    spec = {name: {key: it[key] for key in kept if key in it} for name, it in awx()[module].items()}
    found: list[str] = ArgumentSpecValidator(spec).validate(item).error_messages
    return found


def surveys() -> list[tuple[str, dict[str, Any], list[str]]]:
    """Name, survey and playbooks of everything that asks something."""
    named = {one["name"]: played(one) for one in stated()["controller_templates"]}
    found = [
        (one["name"], one["survey_spec"], [named[one["name"]]])
        for one in stated()["controller_templates"]
        if "survey_spec" in one
    ]
    used = [
        named[node["unified_job_template"]] for node in nodes().values() if "unified_job_template" in node
    ]
    return found + [(one["name"], one["survey_spec"], used) for one in stated()["controller_workflows"]]


def questions() -> list[tuple[str, dict[str, Any], list[str]]]:
    return [
        (name, question, playbooks) for name, survey, playbooks in surveys() for question in survey["spec"]
    ]


def inputs(playbook: str) -> dict[str, dict[str, Any]]:
    """All that a run of it may be given."""
    of_roles = {name: it for role in roles(playbook) for name, it in role_options(role).items()}
    return {**of_roles, **options(FLEET), **options(playbook)}


def listed_by_a_controller(root: Path) -> set[str]:
    """Its scan of a project: skip_directory and could_be_playbook of awx/main/utils/ansible.py (AWX 24.6.1), in other words."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    found = set()
    for name in filter(None, tracked.stdout.decode().split("\0")):
        folders = Path(name).parts[:-1]
        skipped = {"roles", "tasks", "group_vars", "host_vars"} & set(folders) or any(
            part.startswith(".") for part in folders
        )
        if skipped or Path(name).suffix not in (".yml", ".yaml") or not (root / name).is_file():
            continue
        lines = (root / name).read_text().splitlines()
        if any(re.match(r"\s*-?\s*(hosts|(ansible\.builtin\.)?import_playbook):", line) for line in lines):
            found.add(name)
    return found


@needs_awx
@pytest.mark.parametrize("kind", MODULES)
def test_awx_takes_what_is_stated(kind):
    for item in stated()[kind]:
        item = {key: value for key, value in item.items() if key != "simplified_workflow_nodes"}
        assert problems(MODULES[kind], item) == [], item["name"]


@needs_awx
def test_awx_takes_the_nodes_of_the_workflow():
    for node in nodes().values():
        assert problems(NODE, node | {"workflow_job_template": "w"}) == []
        assert ("approval_node" in node) is not ("unified_job_template" in node)


def test_what_names_another_object_names_one_that_is_there():
    names = {kind: {item["name"] for item in items} for kind, items in stated().items()}
    for item in [item for items in stated().values() for item in items]:
        assert item.get("project", item.get("source_project")) in names["controller_projects"] | {None}
        assert item.get("inventory") in names["controller_inventories"] | {None}
        assert item.get("execution_environment") in names["controller_execution_environments"] | {None}
    for node in nodes().values():
        assert node.get("unified_job_template") in names["controller_templates"] | {None}


def test_every_playbook_that_a_person_launches_has_one_template():
    playbooks = [one["playbook"] for one in stated()["controller_templates"]]
    assert sorted(playbooks) == [f"sparkfleet.vllm.{name}" for name in NAMES if name != "controller"]


def test_a_controller_takes_a_playbook_of_the_image():
    """By its full name it is no file of the project, and JobOptionsSerializer.validate (AWX 24.6.1) refuses it without this."""
    (project,) = stated()["controller_projects"]
    assert project["allow_override"] is True


def test_a_sync_of_the_project_needs_nothing_but_git():
    """A controller installs what these name, in its control-plane image: with all dependencies, by the Galaxy credentials of the
    organization. Without one it installs nothing, and without a network the sync fails (project_update.yml, AWX 24.6.1).
    """
    asked = ("collections/requirements", "roles/requirements", "requirements")
    assert [name for name in asked for ending in (".yml", ".yaml") if (ROOT / (name + ending)).exists()] == []


def test_the_list_of_playbooks_holds_little_else():
    """Scenarios are playbooks and molecule wants them where they are; everything else can stay out."""
    others = {name for name in listed_by_a_controller(ROOT) if not name.startswith("molecule/")}
    assert others == {f"playbooks/{name}.yml" for name in NAMES}


@pytest.mark.parametrize(("name", "survey", "_playbooks"), surveys(), ids=[name for name, *_ in surveys()])
def test_a_controller_takes_the_survey(name, survey, _playbooks):
    assert set(survey) == {"name", "description", "spec"} and survey["spec"]
    variables = [question["variable"] for question in survey["spec"]]
    assert len(set(variables)) == len(variables)
    for question in survey["spec"]:
        assert set(QUESTION) <= set(question) <= set(QUESTION) | OPTIONAL
        assert all(isinstance(question[key], kind) for key, kind in QUESTION.items())
        assert question["type"] in TYPES
        assert all(isinstance(question.get(key, 0), int) for key in ("min", "max"))
        choices = question.get("choices", [])
        assert bool(choices) is (question["type"] in CHOICES)
        assert all(isinstance(choice, str) and choice.strip() for choice in choices)


@pytest.mark.parametrize(("name", "question", "playbooks"), questions())
def test_every_answer_is_an_input_of_the_playbook(name, question, playbooks):
    """Each choice, or both ends of a number, as the launched job would pass it on, is what the input's spec lets pass."""
    known = [inputs(playbook) for playbook in playbooks if question["variable"] in inputs(playbook)]
    assert known, f"{name} asks for {question['variable']}, which {playbooks} do not know"
    answers: list[Any] = question.get("choices") or [question.get("min", 0), question.get("max", 1)]
    if question["type"].startswith("text"):
        answers = ["", "/some/where"]
    if question["type"] == "multiselect":
        answers = [answers]
    for spec in known:
        validator = ArgumentSpecValidator(
            {question["variable"]: spec[question["variable"]] | {"required": False}}
        )
        for answer in answers:
            assert validator.validate({question["variable"]: answer}).error_messages == [], answer


@pytest.mark.parametrize(("name", "question", "playbooks"), questions())
def test_a_blank_answer_is_none_wherever_it_is_read(name, question, playbooks):
    """A controller hands on null or an empty text, over whatever an inventory says."""
    variable = question["variable"]
    for playbook in playbooks:
        text = "\n".join(
            line
            for line in (own_text(playbook) + defaults_text(playbook)).splitlines()
            if not line.startswith("#")
        )
        uses = re.findall(rf"(?<![\w.]){variable}\b(?! *:)(.*)", text)
        if variable == "spark_drift_fail":  # false is an answer
            assert uses and all(use.startswith(" | default(true) in ['', none] or") for use in uses), uses
            continue
        for use in uses:
            assert re.match(
                r" \| default\(('[^']*'|\[[^\]]*\]|false|[\w.| ]+|[\w.| ]+\(.*?\)), true\)", use
            ), use


@pytest.mark.parametrize(("_name", "question", "_playbooks"), questions())
def test_an_unanswered_question_passes_on_nothing(_name, question, _playbooks):
    """The inventory may say otherwise. AWX drops a default that is not one of the choices, and its page reads the default of a
    question with choices, of which it takes the length (SurveyListItem.js, AWX 24.6.1). An empty text is a text, which AWX passes on.
    """
    default = {"default": ""} if question["type"] in CHOICES else {}
    assert {key: question[key] for key in ("default",) if key in question} == default
    assert question["required"] is False and "" not in question.get("choices", [])


def test_surveys_offer_every_recipe_that_is_shipped():
    shipped = sorted(
        path.stem for path in (ROOT / "recipes").glob("*.yml") if not path.name.endswith(".lock.yml")
    )
    assert read("settings.yml")["spark_controller_recipes"] == shipped


def test_what_a_template_sets_is_an_input_of_its_playbook():
    for one in stated()["controller_templates"]:
        assert set(one.get("extra_vars", {})) <= set(inputs(played(one))), one["name"]


@pytest.mark.parametrize("name", ["site", "verify", "bundle"])
def test_a_job_is_held_to_the_lock_of_the_project(name):
    """A lock that a job makes on first use is gone with the job, and the next one would resolve names anew."""
    assert template(f"Sparks: {name}")["extra_vars"]["spark_locked"] is True


def test_settings_and_inputs_agree():
    settings, wanted = read("settings.yml"), options("controller")
    assert set(wanted) == set(settings) | {name for name, it in wanted.items() if it.get("required")}
    for name, it in wanted.items():
        assert "default" not in it or it["default"] == settings[name], name


def test_a_person_names_the_canary():
    """AWX lists a group's hosts in no fixed order, so no pattern with a place in it says which host is the first to change."""
    assert "spark_controller_canary" not in read("settings.yml")
    assert options("controller")["spark_controller_canary"]["required"] is True


def test_the_settings_on_the_page_work_in_a_first_run():
    """As printed: all that is required, and no credential, since the types of some come with this run."""
    page = (ROOT / "docs/controller.md").read_text()
    (text,) = re.findall(r"^( +)# mine\.yml\n((?:\1\S.*\n)+)", page, re.MULTILINE)
    given = yaml.safe_load(text[1])
    wanted = options("controller")
    assert ArgumentSpecValidator(wanted).validate(given).error_messages == []
    assert given["spark_controller_credentials"] == []


@needs_awx
def test_the_page_names_the_environment_that_awx_reads():
    page = set(re.findall(r"CONTROLLER_[A-Z_]+", (ROOT / "docs/controller.md").read_text()))
    files = metadata.distribution("ansible").files or []
    (client,) = [
        file for file in files if str(file).endswith("awx/awx/plugins/module_utils/controller_api.py")
    ]
    read_there = set(re.findall(r"CONTROLLER_[A-Z_]+", client.read_text()))
    assert page >= {
        f"CONTROLLER_{word}" for word in ("HOST", "OAUTH_TOKEN", "USERNAME", "PASSWORD", "VERIFY_SSL")
    }
    assert page <= read_there


def test_the_page_names_what_an_inventory_must_leave_to_a_credential():
    """Variables of the template inventory that win over the Machine credential of a job."""
    text = (ROOT / "inventory/spark/group_vars/sparks/vars.yml").read_text()
    page = (ROOT / "docs/controller.md").read_text().partition("## The inventory\n")[2].partition("\n## ")[0]
    held = ("ansible_user", "ansible_password", "ansible_become_password", "ansible_ssh_private_key_file")
    named = [name for name in held if re.search(rf"^(# )?{name}:", text, re.MULTILINE)]
    assert named and [name for name in named if f"`{name}`" not in page] == []


@pytest.mark.parametrize("encrypted", ["file", "value"])
def test_the_page_says_what_a_sync_makes_of_a_vault(tmp_path, encrypted):
    """A sync is ansible-inventory without a vault password. The template inventory recommends a vault.yml."""
    folder = tmp_path / "group_vars/sparks"
    folder.mkdir(parents=True)
    (tmp_path / "hosts.yml").write_text("sparks: {hosts: {spark-1: {}}}\n")
    (tmp_path / "password").write_text("p")
    tool = str(Path(sys.executable).with_name("ansible-vault"))
    how = ["encrypt"] if encrypted == "file" else ["encrypt_string", "--stdin-name", "vault_api_key"]
    given = "vault_api_key: k\n" if encrypted == "file" else "k"
    secret = subprocess.run(
        [tool, *how, "--vault-password-file", str(tmp_path / "password")],
        input=given, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (folder / "vault.yml").write_text(secret)
    listing = [str(Path(sys.executable).with_name("ansible-inventory")), "--list", "--export", "-i"]
    done = subprocess.run(
        [*listing, str(tmp_path / "hosts.yml")], capture_output=True, text=True, check=False
    )
    said = "Attempting to decrypt but no vault secrets found"
    assert (done.returncode != 0 and said in done.stderr) is (encrypted == "file"), done.stderr
    assert said in (ROOT / "docs/controller.md").read_text()


def test_no_secret_is_asked_for_or_stated():
    secret = re.compile("token|key|password|secret")
    given = [question["variable"] for _, question, _ in questions()]
    given += [name for one in stated()["controller_templates"] for name in one.get("extra_vars", {})]
    assert [name for name in given if secret.search(name)] == []
    assert all(question["type"] != "password" for _, question, _ in questions())


def test_a_secret_reaches_a_job_by_the_variable_that_a_role_reads():
    defaults = "".join(path.read_text() for path in (ROOT / "roles").glob("*/defaults/main.yml"))
    for one in stated()["controller_credential_types"]:
        ((variable, text),) = one["injectors"]["env"].items()
        (field,) = one["inputs"]["fields"]
        assert one["injectors"].keys() == {"env"} and field["secret"] is True
        assert isinstance(text, Unsafe) and text == "{{ " + field["id"] + " }}"
        assert one["inputs"]["required"] == [field["id"]]
        assert f"lookup('ansible.builtin.env', '{variable}')" in defaults


def test_the_workflow_goes_from_lock_to_measurement_and_back_on_failure():
    def way(node: str, kind: str) -> list[str]:
        following: list[str] = nodes()[node].get(kind, [])
        return following

    went, at = ["lock"], "lock"
    while way(at, "success_nodes"):
        (at,) = way(at, "success_nodes")
        went.append(at)
    assert went == ["lock", "canary", "consent", "fleet", "verify"]
    assert nodes()["canary"]["limit"] == GIVEN["spark_controller_canary"] and "limit" not in nodes()["fleet"]
    assert template(nodes()["canary"]["unified_job_template"])["ask_limit_on_launch"] is True
    assert {node: way(node, "failure_nodes") for node in went if way(node, "failure_nodes")} == {
        "consent": ["rollback"],
        "fleet": ["rollback"],
        "verify": ["rollback"],
    }
    assert (
        set(went) | {"rollback"}
        == set(nodes())
        == {"lock"} | {name for node in nodes().values() for name in after(node)}
    )


def test_site_hands_on_which_hosts_it_has_changed(tmp_path):
    """The task of site.yml, after hosts that are made up: rollback.yml takes all where it is told none, so it always says so."""
    tasks = yaml.safe_load((PLAYBOOKS / "site.yml").read_text())[0]["tasks"]
    (task,) = [task for task in tasks if "sparkfleet.vllm.rollout_changed" in task]
    assert "when" not in task
    hosts = {name: {"spark_change": {"back": True}, "spark_proven": name == "b"} for name in "abc"}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    play = {"hosts": "all", "gather_facts": False, "vars": {"rollback_hosts": ["canary"]}, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    done = run_playbook(
        "-i",
        "hosts.yml",
        "play.yml",
        cwd=tmp_path,
        ANSIBLE_SHOW_CUSTOM_STATS="true",
        ANSIBLE_CALLBACK_RESULT_FORMAT="json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "rollback_hosts" in line]
    assert json.loads(line.split("RUN: ")[1]) == {"rollback_hosts": ["b", "canary"]}


def run(*arguments: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    return run_playbook(PLAYBOOKS / "controller.yml", *arguments, **environment)


@needs_awx
def test_each_object_is_made_once_and_a_second_run_changes_nothing():
    """Against a stub of a controller, so it shows what is asked of one, and not that a real one would agree."""
    controller = Controller()
    with serving(controller) as address:
        host = {
            "CONTROLLER_HOST": address,
            "CONTROLLER_OAUTH_TOKEN": "token-of-the-stub",
            # The stub has no TLS. A module reads all authorities of the machine for each request anyway, unless there are none.
            "CONTROLLER_VERIFY_SSL": "false",
            "SSL_CERT_FILE": os.devnull,
        }
        first = run("-e", json.dumps(GIVEN), **host)
        assert first.returncode == 0, first.stdout + first.stderr
        made = {
            kind: sorted(controller.named(kind)) for kind in ("job_templates", "credential_types", "projects")
        }
        assert made["job_templates"] == sorted(one["name"] for one in stated()["controller_templates"])
        assert made["credential_types"] == ["Hugging Face Hub token", "vLLM API key"]
        assert controller.named("credential_types")["vLLM API key"]["injectors"] == {
            "env": {"VLLM_API_KEY": "{{ api_key }}"}
        }
        project = controller.named("projects")["sparkfleet"]
        assert project["scm_url"] == GIVEN["spark_controller_project_url"]
        numbers = {name: each["id"] for name, each in controller.named("credentials").items()}
        assert project["credential"] == numbers["git"]
        assert controller.named("execution_environments")["sparkfleet"]["credential"] == numbers["registry"]
        assert controller.synced == 1
        assert sorted(controller.named("workflow_job_template_nodes")) == sorted(nodes())
        assert sorted(survey["name"] for survey in controller.surveys.values()) == sorted(
            s["name"] for _, s, _ in surveys()
        )
        number = {name: node["id"] for name, node in controller.named("workflow_job_template_nodes").items()}
        for name, node in nodes().items():
            linked = controller.links[f"/api/v2/workflow_job_template_nodes/{number[name]}/success_nodes/"]
            assert linked == [number[each] for each in node.get("success_nodes", [])]
        controller.wrote.clear()
        # What was set on the controller stays where no setting names another.
        unnamed = {name: value for name, value in GIVEN.items() if not name.endswith("_credential")}
        second = run("-e", json.dumps(unnamed), **host)
        assert second.returncode == 0 and controller.wrote == []
        assert controller.synced == 2
        assert "changed=0" in second.stdout
        looked = run("-e", json.dumps(GIVEN), "--check", **host)
        assert looked.returncode == 0 and "changed=0" in looked.stdout and controller.wrote == []
        assert controller.synced == 2, "a check syncs nothing"


def test_without_awx_the_run_says_what_to_install():
    done = run(
        "-e",
        json.dumps(GIVEN),
        ANSIBLE_COLLECTIONS_SCAN_SYS_PATH="false",
        CONTROLLER_HOST="http://127.0.0.1:9",
    )
    assert done.returncode != 0
    assert (
        "ansible-galaxy collection install awx.awx" in done.stdout
        and "couldn't resolve module" in done.stdout + done.stderr
    )
