"""A fleet in data, for tests of the plan of a sync and of its report."""

from __future__ import annotations

import copy

from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.sync import plan

BODY, DRAFT = "b" * 40, "d" * 40
SIZE = {BODY: 1000, DRAFT: 100}


def look(whole=(), missing=None, kept=0, unchecked=False, address="10.0.0.1", commits=(BODY, DRAFT)):
    """What hf_snapshot_info says of a host. `missing`: {commit: bytes}; a commit in neither is not there at all."""
    missing = missing or {}
    return {
        "address": address,
        "unchecked": unchecked,
        "look": [
            {
                "repository": f"lab/{commit[0]}",
                "commit": commit,
                "whole": commit in whole,
                "bytes": SIZE[commit],
                "missing_bytes": 0 if commit in whole else missing.get(commit, SIZE[commit]),
                "kept_bytes": kept,
            }
            for commit in commits
        ],
    }


def fetched(*commits, state="fetched"):
    return {
        "snapshots": [
            {"commit": commit, "state": state, "fetched_bytes": SIZE[commit], "seconds": 2.0}
            for commit in commits
        ]
    }


def status(state="whole", commits=(), problem="", **more):
    reports = [
        {"commit": commit, "state": "fetched", "fetched_bytes": 0, "seconds": 1.0} for commit in commits
    ]
    return {"state": state, "snapshots": reports, "problem": problem, "seconds": 4.0, **more}


def waited(seen):
    return {"settled": seen["state"] == "whole", "problem": seen["problem"], "status": seen}


class Run:
    """The role's steps on a fleet, each given as {host: what the task returned}."""

    def __init__(self, fan_out=True, **looks):
        self.fan_out, self.plan = fan_out, {}
        self.batch = list(looks)
        self.look(**looks)

    def note(self, step, **results):
        self.plan = plan.note(copy.deepcopy(self.plan), step, results, self.batch, self.fan_out)
        return self

    def look(self, hashed=None, **looks):
        return self.note("look", look=looks, hash=hashed or {})

    def fetch(self, **results):
        return self.note("fetch", fetch=results)

    def describe(self, **results):
        return self.note("describe", describe=results)

    def described(self):
        """Every description asked for is given."""
        given: dict[str, dict] = {}
        for commit, host in self.plan["describe"].items():
            given.setdefault(host, {"torrents": {}})["torrents"][commit] = "opaque"
        return self.describe(**given)

    def transfer(self, start=None, stop=None, **wait):
        """`wait` and `stop`: {host: the status of its peer, or what a task without one returned}"""
        waits = {host: waited(one) if "state" in one else one for host, one in wait.items()}
        stops = {host: {"status": one} if "state" in one else one for host, one in (stop or {}).items()}
        return self.note("transfer", start=start or {}, wait=waits, stop=stops)

    def does(self, what):
        return {host: does[what] for host, does in self.plan["hosts"].items() if does[what]}

    @property
    def done(self):
        return not (self.plan["can_transfer"] or self.plan["suspects"] or self.plan["incomplete"])


WHOLE = (BODY, DRAFT)
