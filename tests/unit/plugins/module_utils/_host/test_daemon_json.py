from __future__ import annotations

import json
import random
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._host import daemon_flags, daemon_json

CONTAINER = {"name": "sparkfleet-vllm"}


def test_parse_reports_the_position_of_what_is_no_json():
    with pytest.raises(daemon_json.DaemonConfigError, match=r"^line 2, column 3: "):
        daemon_json.parse('{\n  data-root: "/x"}')


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_an_empty_configuration(text):
    assert daemon_json.parse(text) == {}


@pytest.mark.parametrize(
    ("text", "kind"), [("[]", "list"), ("null", "null"), ("true", "boolean"), ('"x"', "string")]
)
def test_parse_wants_an_object(text, kind):
    with pytest.raises(daemon_json.DaemonConfigError, match=f"there is a {kind}$"):
        daemon_json.parse(text)


def test_a_byte_order_mark_is_no_content():
    assert daemon_json.parse('\ufeff{"debug": true}') == {"debug": True}
    assert daemon_json.parse("\ufeff") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper than"),
        ('{"mtu": ' + "1" * 5000 + "}", "digits"),
        ('{"registry-mirrors": 5}', "registry-mirrors: a list of strings"),
        ('{"registry-mirrors": [{}]}', "registry-mirrors: a list of strings"),
        ('{"insecure-registries": "x"}', "insecure-registries: a list of strings"),
        ('{"runtimes": []}', "runtimes: an object is needed, there is a list"),
        ('{"features": true}', "features: an object is needed, there is a boolean"),
    ],
)
def test_what_dockerd_would_not_start_with_is_said(text, said):
    with pytest.raises(daemon_json.DaemonConfigError, match=said):
        daemon_json.parse(text)


def test_what_is_wanted_is_held_to_the_same():
    with pytest.raises(daemon_json.DaemonConfigError, match="runtimes: an object"):
        daemon_json.wanted({}, [], False, {"runtimes": "nvidia"})


KEYS = ("registry-mirrors", "insecure-registries", "runtimes", "features", "live-restore")


def test_null_is_nothing_as_it_is_for_dockerd():
    empty = daemon_json.parse(json.dumps(dict.fromkeys(KEYS)))
    engine = {"registry_mirrors": [], "insecure_registries": [], "runtimes": ["runc"], "live_restore": True}
    assert plan(empty, empty, engine=engine).action == "none"
    merged = daemon_json.wanted(empty, ["http://m"], True, {"features": {"cdi": True}}, FLEET)
    assert merged["registry-mirrors"] == [FLEET, "http://m"]
    assert (merged["runtimes"], merged["features"]) == (daemon_json.NVIDIA_RUNTIME, {"cdi": True})
    assert daemon_json.wanted(empty, [], False, {}, FLEET)["registry-mirrors"] == [FLEET]


@pytest.mark.parametrize("indent", ["  ", "    ", "\t"])
def test_render_keeps_the_indentation(indent):
    text = json.dumps({"a": {"b": 1}}, indent=indent) + "\n"
    assert daemon_json.render(daemon_json.parse(text), like=text) == text


def test_merge_keeps_order_unites_lists_and_goes_deep():
    current = {"log-opts": {"max-size": "5m", "tag": "x"}, "registry-mirrors": ["http://own/"], "debug": True}
    config = {"registry-mirrors": ["http://own", "http://new"], "log-opts": {"max-size": "9m"}, "mtu": 1400}
    merged = daemon_json.merge(current, config)
    assert list(merged) == ["log-opts", "registry-mirrors", "debug", "mtu"]
    assert merged["log-opts"] == {"max-size": "9m", "tag": "x"}
    # The engine shows mirrors with a slash: the same mirror is not listed twice.
    assert merged["registry-mirrors"] == ["http://own/", "http://new"]


def test_merge_refuses_to_replace_a_list_by_a_string():
    with pytest.raises(daemon_json.DaemonConfigError, match="dns: wanted string, the file has list"):
        daemon_json.merge({"dns": ["1.1.1.1"]}, {"dns": "9.9.9.9"})
    with pytest.raises(daemon_json.DaemonConfigError, match="log-opts.x: wanted object, the file has number"):
        daemon_json.merge({"log-opts": {"x": 1}}, {"log-opts": {"x": {}}})


def test_a_runtime_that_is_there_stays_as_it_is():
    own = {"runtimes": {"nvidia": {"path": "/opt/own"}}}
    assert daemon_json.wanted(own, [], True, {}) == own
    assert daemon_json.wanted({"runtimes": {"kata": {"path": "k"}}}, [], True, {}) == {
        "runtimes": {"kata": {"path": "k"}, **daemon_json.NVIDIA_RUNTIME}
    }


def test_nothing_wanted_changes_nothing():
    assert daemon_json.wanted({"debug": True}, [], False, {}) == {"debug": True}


FLEET = "http://192.0.2.1:5000"


@pytest.mark.parametrize(
    ("there", "mirrors", "expected"),
    [
        ([], [], [FLEET]),
        ([], ["http://m"], [FLEET, "http://m"]),
        (["http://own"], ["http://m"], [FLEET, "http://own", "http://m"]),
        (["http://own", FLEET, "http://m"], [], [FLEET, "http://own", "http://m"]),
        ([f"{FLEET}/", "http://own"], [], [f"{FLEET}/", "http://own"]),
    ],
)
def test_the_fleets_registry_is_asked_before_every_other_mirror(there, mirrors, expected):
    before = {"registry-mirrors": there} if there else {}
    assert daemon_json.wanted(before, mirrors, False, {}, FLEET)["registry-mirrors"] == expected


def test_without_a_registry_of_the_fleet_the_order_of_mirrors_stays():
    own = {"registry-mirrors": ["http://b", "http://a"]}
    assert daemon_json.wanted(own, ["http://a"], False, {}) == own


def _tree(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """The kind of a value hangs on its key, so that any two trees can be merged."""
    return {f"{key}{depth}": _value(rng, key, depth) for key in rng.sample("abcdefgh", rng.randint(0, 6))}


def _value(rng: random.Random, key: str, depth: int) -> Any:
    if key in "ab":
        return rng.sample(["p", "q", {"r": 1}, "s"], rng.randint(0, 3))
    if key in "cd" and depth < 3:
        return _tree(rng, depth + 1)
    return rng.choice([0, 1, True, None, "x"]) if key not in "cd" else {}


def _holds(merged: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return all(key in merged and _holds(merged[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return all(item in merged for item in wanted)
    return merged == wanted and type(merged) is type(wanted)


def _keeps(merged: Any, current: Any) -> bool:
    """Every key and every list item of the user is still there, in its order."""
    if isinstance(current, dict):
        ordered = [key for key in merged if key in current] == list(current)
        return ordered and all(_keeps(merged[key], value) for key, value in current.items())
    return not isinstance(current, list) or merged[: len(current)] == current


@pytest.mark.parametrize("seed", range(200))
def test_merge_properties(seed):
    rng = random.Random(seed)
    current, config = _tree(rng), _tree(rng)
    before = json.dumps([current, config])
    merged = daemon_json.merge(current, config)
    assert _holds(merged, config)
    assert _keeps(merged, current)
    assert daemon_json.merge(merged, config) == merged, "a second merge changes nothing"
    assert daemon_json.changed_keys(merged, daemon_json.merge(merged, config)) == []
    assert json.dumps([current, config]) == before, "what goes in is left alone"
    text = daemon_json.render(merged)
    assert daemon_json.parse(text) == merged


def test_the_random_trees_are_not_trivial():
    trees = [_tree(random.Random(seed)) for seed in range(400)]
    sizes = [len(json.dumps(daemon_json.merge(*pair))) for pair in zip(trees[:200], trees[200:], strict=True)]
    assert sum(size > 100 for size in sizes) > 100


def plan(before, after, **kwargs):
    return daemon_json.plan(before, after, **{"running": True, "engine": {}, **kwargs})


@pytest.mark.parametrize("key", ["registry-mirrors", "insecure-registries", "runtimes", "live-restore"])
def test_what_a_reload_applies_needs_no_restart(key):
    assert plan({}, {key: []}, containers=[CONTAINER]).action == "reload"


def test_other_keys_need_a_restart_and_name_whom_it_stops():
    found = plan({}, {"log-opts": {}, "debug": True}, containers=[CONTAINER])
    assert (found.action, found.stops) == ("restart", ["sparkfleet-vllm"])
    assert found.because == ["log-opts takes effect at a restart only"]


def test_live_restore_saves_containers_unless_the_engine_could_not_find_them_again():
    engine = {"live_restore": True}
    assert plan({}, {"log-opts": {}}, engine=engine, containers=[CONTAINER]).stops == []
    assert plan({}, {"data-root": "/x"}, engine=engine, containers=[CONTAINER]).stops == ["sparkfleet-vllm"]


def test_an_engine_that_lost_a_reload_gets_another():
    content = {"registry-mirrors": ["http://m"], "runtimes": {"nvidia": {}}, "live-restore": True}
    engine = {"registry_mirrors": ["http://m/"], "runtimes": ["nvidia", "runc"], "live_restore": True}
    assert plan(content, content, engine=engine).action == "none"
    for key, value in {"registry_mirrors": [], "runtimes": ["runc"], "live_restore": False}.items():
        assert plan(content, content, engine={**engine, key: value}).action == "reload", key


def test_an_engine_that_does_not_run_needs_nothing():
    assert plan({}, {"log-opts": {}}, running=False, containers=[CONTAINER]).action == "none"


@pytest.mark.parametrize(
    ("policy", "containers", "refused"),
    [
        ("auto", [], None),
        ("auto", [CONTAINER], "it would stop sparkfleet-vllm"),
        ("always", [CONTAINER], None),
        ("never", [], "restarts are off (never)"),
    ],
)
def test_refusal(policy, containers, refused):
    restart = plan({}, {}, containers=containers, restart_because=["toolkit"])
    assert daemon_json.refusal(restart, policy) == refused
    assert daemon_json.refusal(plan({}, {"debug": True}, containers=containers), policy) is None


def test_passwords_in_urls_are_not_shown():
    secret = {"proxies": {"http-proxy": "http://me:pw@proxy:3128"}, "x": ["https://a:b@h/p", "https://h/@x"]}
    assert daemon_json.redacted(secret) == {
        "proxies": {"http-proxy": "http://***@proxy:3128"},
        "x": ["https://***@h/p", "https://h/@x"],
    }


SNAPSHOTTER = {"features": {"containerd-snapshotter": True}}


@pytest.mark.parametrize(
    ("after", "engine", "because"),
    [
        (
            SNAPSHOTTER,
            {"containerd_snapshotter": False},
            ["features.containerd-snapshotter: the engine chooses"],
        ),
        ({"storage-driver": "btrfs"}, {"storage_driver": "overlay2"}, ["storage-driver: the engine chooses"]),
        (
            {"features": {"cdi": True}},
            {"live_restore": False},
            ["features.cdi takes effect at a restart only"],
        ),
        # An engine before 23 shows no store; what it shows already needs no restart.
        (SNAPSHOTTER, {}, ["features.containerd-snapshotter takes effect at a restart only"]),
        (SNAPSHOTTER, {"containerd_snapshotter": True}, []),
        ({"features": {"buildkit": True}}, {}, []),
    ],
)
def test_a_feature_that_dockerd_reads_at_its_start_needs_one(after, engine, because):
    planned = plan({"debug": True}, {"debug": True} | after, engine=engine, containers=[CONTAINER])
    assert planned.changed == list(after)
    assert [text[: len(said)] for text, said in zip(planned.because, because, strict=True)] == because
    assert (planned.action, planned.stops) == (
        ("restart", ["sparkfleet-vllm"]) if because else ("reload", [])
    )


def test_another_image_store_loses_the_containers_that_live_restore_keeps():
    engine = {"live_restore": True, "containerd_snapshotter": False}
    assert plan({}, SNAPSHOTTER, engine=engine, containers=[CONTAINER]).stops == ["sparkfleet-vllm"]
    assert plan({}, {"features": {"cdi": True}}, engine=engine, containers=[CONTAINER]).stops == []


def test_what_to_do_about_a_restart_that_may_not_be():
    log = plan({}, {"log-opts": {}}, engine={})
    assert "set live-restore" in daemon_json.instead(log.because)
    store = plan({}, SNAPSHOTTER, engine={"containerd_snapshotter": False})
    assert "stop.yml --limit" in daemon_json.instead(store.because), "live-restore is of no use there"


def test_an_engine_that_never_took_up_its_image_store_is_seen_again():
    assert plan(SNAPSHOTTER, SNAPSHOTTER, engine={"containerd_snapshotter": False}).action == "restart"
    assert plan(SNAPSHOTTER, SNAPSHOTTER, engine={"containerd_snapshotter": True}).action == "none"
    assert daemon_json.store_differs({"features": None}, {"containerd_snapshotter": True}) == []


@pytest.mark.parametrize(
    ("content", "version", "conflict"),
    [
        (SNAPSHOTTER, "29.7.2", False),
        (SNAPSHOTTER, "23.0.1", False),
        (SNAPSHOTTER, "20.10.24", True),
        # Of an engine that does not run nothing is known.
        (SNAPSHOTTER, None, False),
        (SNAPSHOTTER | {"storage-driver": "overlay2"}, "29.7.2", True),
        (SNAPSHOTTER | {"storage-driver": "overlay2"}, None, True),
        (SNAPSHOTTER | {"storage-driver": "btrfs"}, "29.7.2", False),
        ({"features": {"containerd-snapshotter": False}, "storage-driver": "overlay2"}, "20.10.24", False),
        ({}, "20.10.24", False),
    ],
)
def test_an_image_store_that_the_engine_cannot_have(content, version, conflict):
    assert bool(daemon_json.store_conflict(content, version)) == conflict


PACKAGED = ["/usr/bin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"]


@pytest.mark.parametrize(
    ("argv", "keys"),
    [
        (PACKAGED, ["containerd", "hosts"]),
        (["dockerd", "-Hfd://", "-D", "--label", "a=b", "--config-file=/x"], ["debug", "hosts", "labels"]),
        (
            ["dockerd", "--http-proxy=http://me:pw@p", "--max-concurrent-downloads", "3"],
            ["http-proxy", "max-concurrent-downloads"],
        ),
        (
            ["dockerd", "--feature", "cdi=true", "--host-gateway-ip=192.0.2.1"],
            ["features", "host-gateway-ips"],
        ),
        (["dockerd", "--"], []),
        ([], []),
    ],
)
def test_flags_of_dockerd_are_keys_of_its_file(argv, keys):
    assert daemon_flags.keys(argv) == keys


def test_a_key_that_is_a_flag_too_is_refused():
    flags = daemon_flags.keys([*PACKAGED, "--add-runtime=kata=/k", "--registry-mirror=http://m"])
    assert daemon_flags.conflict(flags, {"debug": True, "runtimes": {}}) is None, "runtimes are united"
    assert "hosts, registry-mirrors as a flag too" in (
        daemon_flags.conflict(flags, {"hosts": [], "debug": True, "registry-mirrors": []}) or ""
    )


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--feature=containerd-snapshotter", "features"),
        ("--host-gateway-ip=192.0.2.1", "host-gateway-ips"),
        ("--host-gateway-ip=192.0.2.1", "host-gateway-ip"),
    ],
)
def test_only_runtimes_may_be_both_a_flag_and_a_key(flag, key):
    flags = daemon_flags.keys([*PACKAGED, flag])
    assert f"{key} as a flag too" in (daemon_flags.conflict(flags, {key: None}) or "")
