"""The files of the role monitoring, rendered by Ansible's own templating, and inputs to differ from."""

from __future__ import annotations

import base64
import json
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.monitoring import plan
from helpers.recipe import ROOT

TEMPLATES = ROOT / "roles/monitoring/templates"
SPARKS = {"spark-1": "192.0.2.1", "spark-2": "192.0.2.2"}


def inputs(**given: Any) -> dict[str, Any]:
    """Of two Sparks behind a gateway, which is the monitoring host, too."""
    return {
        "sparks": SPARKS,
        "gateways": {"gate-1": "192.0.2.9"},
        "monitoring": {"gate-1": "192.0.2.9"},
        "former": "",
        "exporter_port": 9100,
        "gateway_metrics_port": 8405,
        "listen": "127.0.0.1",
        "port": 9090,
        "alertmanager_port": 9093,
        "interval": 15,
        "retention_days": 30,
        "retention_gigabytes": 8,
        "thresholds": {},
        "waits": {},
    } | given  # fmt: skip


def recorded(port: int = 8000, published: list[str] | None = None, **more: Any) -> str:
    """state.json of a Spark that has passed, in base64."""
    serving = {
        "recipe": "gemma",
        "container": {"image": "v@sha256:1", "published_ports": published or []},
        "models": {},
        "files": [],
        "gate": {"served_model": "chat", "base_url": f"http://127.0.0.1:{port}"},
        **more,
    }
    state = {"version": 1, "current": {"serving": serving, "gate": {}}, "last_good": None}
    return base64.b64encode(json.dumps(state).encode()).decode()


def rendered(name: str, looks: dict[str, tuple[str | None, str]] | None = None, **given: Any) -> str:
    """:param given: inputs, and variables of the role"""
    variables = {name: value for name, value in given.items() if name.startswith("monitoring_")}
    made = plan.plan(
        inputs(**{key: each for key, each in given.items() if key not in variables}), looks or {}
    )
    known = {
        "ansible_managed": "managed",
        "__monitoring_plan": made.as_data(),
        "monitoring_directory": "/etc/prometheus/sparkfleet",
        "monitoring_pages": "docs",
        "monitoring_receiver": {},
    }
    text = trust_as_template((TEMPLATES / f"{name}.j2").read_text())
    return str(Templar(loader=DataLoader(), variables=known | variables).template(text))


def rules(**given: Any) -> str:
    return rendered("rules.yml", **given)
