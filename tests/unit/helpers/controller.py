"""A stub of an automation controller: as much of its API as awx.awx needs to make objects and to find them again. Nothing runs in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from helpers.server import Handler, served

# What a controller stores where a request leaves it out.
STORED: dict[str, dict[str, Any]] = {"inventories": {"kind": "", "host_filter": None}}
UNIFIED = ("job_templates", "projects", "inventory_sources", "workflow_job_templates")


class Controller:
    """Objects by kind, in the order in which they were made, every request that changed something, and how often a project was synced."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[dict[str, Any]]] = {"organizations": []}
        self.links: dict[str, list[int]] = {}
        self.surveys: dict[str, Any] = {}
        self.wrote: list[tuple[str, str]] = []
        self.synced = 0
        self.make("organizations", {"name": "Default"})
        for name in ("ssh", "git", "registry"):
            self.make("credentials", {"name": name})

    def make(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        number = 1 + sum(len(made) for made in self.kinds.values())
        url = f"/api/v2/{kind}/{number}/"
        made = {
            "type": kind.removesuffix("s"),
            "scm_revision": "",
            **STORED.get(kind, {}),
            **{name: value for name, value in fields.items() if value is not None},
            "id": number,
            "url": url,
            "related": {"survey_spec": url + "survey_spec/", "update": url + "update/"},
            "summary_fields": {},
        }
        self.kinds.setdefault(kind, []).append(made)
        return made

    def named(self, kind: str) -> dict[str, dict[str, Any]]:
        return {made.get("identifier") or made["name"]: made for made in self.kinds.get(kind, [])}

    def find(self, kind: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        kinds = UNIFIED if kind == "unified_job_templates" else (kind,)
        wanted = {name.removeprefix("or__"): value for name, value in asked.items() if name != "or__id"}
        return [
            made
            for one in kinds
            for made in self.kinds.get(one, [])
            if all(str(made.get(name)) == value for name, value in wanted.items())
        ]

    def answer(self, method: str, path: str, asked: dict[str, str], sent: Any) -> tuple[int, Any]:
        found = re.fullmatch(r"/api/v2/(\w+)/(?:(\d+)/(?:(\w+)/)?)?", path)
        if not found:
            return 404, {}
        kind, number, part = found.groups()
        if part == "update":
            self.synced += 1
            return 202, {"url": f"/api/v2/project_updates/{self.synced}/"}
        if kind == "project_updates":
            return 200, {"finished": True, "failed": False, "status": "successful", "scm_revision": ""}
        if method != "GET":
            self.wrote.append((method, path))
        if not number:
            return (201, self.make(kind, sent)) if method == "POST" else (200, listed(self.find(kind, asked)))
        item = next((made for made in self.kinds.get(kind, []) if made["id"] == int(number)), None)
        if item is None:
            return 404, {}
        return self.part(method, path, part, item, sent) if part else self.whole(method, item, sent)

    def whole(self, method: str, item: dict[str, Any], sent: Any) -> tuple[int, Any]:
        if method == "PATCH":
            item.update(sent)
        return 200, item

    def part(self, method: str, path: str, part: str, item: dict[str, Any], sent: Any) -> tuple[int, Any]:
        if part == "survey_spec":
            if method == "POST":
                self.surveys[path] = sent
            return 200, self.surveys.get(path, {})
        if part == "create_approval_template":
            made = self.make("workflow_approval_templates", sent)
            item["related"]["unified_job_template"] = made["url"]
            return 201, made
        linked = self.links.setdefault(path, [])
        if method == "POST":
            linked.append(sent["id"])
            return 204, None
        return 200, listed([{"id": number} for number in linked])


def listed(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": len(results), "next": None, "previous": None, "results": results}


@contextmanager
def serving(controller: Controller) -> Iterator[str]:
    """It answers at this address until the end of the block."""

    class Answers(Handler):
        def reply(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            if self.headers.get("Authorization") != "Bearer token-of-the-stub":
                code, body = 401, None
            else:
                code, body = controller.answer(self.command, url.path, dict(parse_qsl(url.query)), sent)
            self.answer(code, b"" if body is None else json.dumps(body).encode())

        do_GET = do_POST = do_PATCH = do_DELETE = reply

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Answers)) as server:
        yield f"http://127.0.0.1:{server.server_port}"
