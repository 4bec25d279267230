"""What the playbooks say of themselves, read for tests, and docs/playbooks.md, which is made of it (`make docs`)."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOKS = ROOT / "playbooks"
ROLES = ROOT / "roles"
PAGE = ROOT / "docs" / "playbooks.md"
NAMES = sorted(path.stem for path in PLAYBOOKS.glob("*.yml") if not path.name.endswith(".meta.yml"))
FLEET = "fleet"
HEAD = """# Playbooks and their inputs

Made by `make docs` from `playbooks/*.meta.yml`; edit those.

Set inputs with `-e`, in an inventory or in a survey. A run checks them before its first task, and says what it expected of a wrong one.
You may also set the inputs of roles (`ansible-doc -t role sparkfleet.vllm.vllm_serve` and so on); a run checks them where the role
begins.

All but `lock.yml` and `controller.yml` take `--limit`, and all take `--check --diff`.
"""


@cache
def meta(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PLAYBOOKS / f"{name}.meta.yml").read_text())
    return loaded


def options(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = meta(name)["argument_specs"][name]["options"]
    return found


@cache
def role_options(role: str) -> dict[str, dict[str, Any]]:
    """Inputs of all entry points of a role."""
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


def own_text(name: str) -> str:
    """A playbook with the task files that it includes and the data that it applies."""
    text = (PLAYBOOKS / f"{name}.yml").read_text()
    data = [path for path in re.findall(r"- (\.\./\S+\.yml)", text) if not path.endswith("/settings.yml")]
    text += "".join((PLAYBOOKS / path).read_text() for path in data)
    if "include_tasks: " in text:
        text += "".join(path.read_text() for path in (PLAYBOOKS / "tasks").glob("*.yml"))
    return text


def roles(name: str) -> set[str]:
    """The roles that a playbook comes to use, directly or by another role."""
    known = {path.name for path in ROLES.iterdir()}
    found: set[str] = set()
    new = set(re.findall(r"sparkfleet\.vllm\.(\w+)", own_text(name))) & known
    while new:
        found |= new
        texts = (path.read_text() for role in new for path in (ROLES / role / "tasks").glob("*.yml"))
        new = set(re.findall(r"sparkfleet\.vllm\.(\w+)", "".join(texts))) & known - found
    return found


def defaults_text(name: str) -> str:
    """The defaults of those roles."""
    return "".join((ROLES / role / "defaults/main.yml").read_text() for role in sorted(roles(name)))


def page() -> str:
    made = [HEAD]
    for name in NAMES:
        made.append(
            f"\n## {name}.yml\n\n{said(meta(name)['short_description'])}. {said(meta(name)['description'])}\n\n"
        )
        made += [f"    {line}\n" for line in meta(name)["argument_specs"][name]["examples"].splitlines()]
        made.append(table(options(name)))
    made.append(f"\n## {meta(FLEET)['short_description']}\n\n{said(meta(FLEET)['description'])}\n")
    return "".join([*made, table(options(FLEET))])


def table(inputs: dict[str, dict[str, Any]]) -> str:
    if not inputs:
        return ""
    rows = [
        f"| `{name}` | {kind(it)} | {default(it)} | {said(it['description'])} |\n"
        for name, it in inputs.items()
    ]
    return "".join(["\n| input | type | default | meaning |\n|---|---|---|---|\n", *rows])


def kind(option: dict[str, Any]) -> str:
    if "choices" in option:
        return " or ".join(f"`{choice}`" for choice in option["choices"])
    return f"{option['type']} of {option['elements']}" if "elements" in option else str(option["type"])


def default(option: dict[str, Any]) -> str:
    if option.get("default") in (None, ""):
        return "required" if option.get("required") else ""
    return (
        "`"
        + yaml.safe_dump(option["default"], default_flow_style=True, width=1000).split("\n...")[0].strip()
        + "`"
    )


def said(text: str) -> str:
    """Ansible's markup as Markdown."""
    return re.sub(r"\b[CVOI]\(([^)]*)\)", r"`\1`", text)


if __name__ == "__main__":
    sys.stdout.write(page())
