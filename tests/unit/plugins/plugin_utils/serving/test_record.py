from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sparkfleet.vllm.plugins.module_utils._vllm.argv import options
from ansible_collections.sparkfleet.vllm.plugins.plugin_utils.serving.record import (
    SpecError,
    container_spec,
    gate_evidence,
    gate_files,
    merge,
    mounted_models,
    serving_record,
    serving_refusals,
    stop_timeout,
    variant,
    weakened,
)
from helpers import unit
from helpers.serving import NOTHING_MORE

INPUTS: dict[str, Any] = {
    "name": "sparkfleet-vllm",
    "image": "vllm/vllm-openai@sha256:" + "a" * 64,
    "models": {
        "body": {"path": "/srv/s/models/o--b/1", "mount": "/models/b"},
        "draft": {"path": "/srv/s/models/o--d/2", "mount": "/models/d"},
    },
    "patches": [
        {"host_path": "/srv/s/patches/1/a.py", "target": "/site/a.py", "mount": True},
        {"host_path": "/srv/s/patches/2/b.py", "target": "/site/b.py", "mount": False},
    ],
    "arguments": {
        "served-model-name": "m",
        "speculative-config": {"method": "mtp", "num_speculative_tokens": 1},
    },
    "extra_arguments": {},
    **NOTHING_MORE,
    "environment": {"A": 1},
    "port": 8000,
    "bind": "127.0.0.1",
    "store": "/srv/s",
    "shm_size": "1g",
    "security": "least",
    "gpus": True,
    "log_driver": "json-file",
    "log_options": {"max-size": "50m", "max-file": 4},
}


def spec(**over):
    inputs: Any = copy.deepcopy(INPUTS) | over
    return container_spec(inputs)


def test_least_privilege_is_the_default_shape():
    made = spec()
    assert made["privileged"] is False
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opts"] == ["no-new-privileges"]
    assert made["published_ports"] == ["127.0.0.1:8000:8000"]
    # The unit restarts a server, so this is no matter of its record.
    assert not {"restart_policy", "restart_retries"} & made.keys()


@pytest.mark.parametrize(
    ("bind", "published"),
    [
        ("127.0.0.2", ["127.0.0.2:8000:8000"]),
        ("0.0.0.0", ["0.0.0.0:8000:8000"]),
        ("192.0.2.7", ["127.0.0.1:8000:8000", "192.0.2.7:8000:8000"]),
        ("2001:db8::7", ["127.0.0.1:8000:8000", "[2001:db8::7]:8000:8000"]),
    ],
)
def test_a_port_of_the_network_is_one_of_the_spark_itself_as_well(bind, published):
    """Where the gate asks."""
    assert spec(bind=bind)["published_ports"] == published


def test_a_port_is_published_at_an_address():
    with pytest.raises(SpecError, match=r"vllm_serve_bind: expected an IP address .* seen 'spark-1'"):
        spec(bind="spark-1")


def test_the_recipes_own_flags_are_exact():
    made = spec(security="recipe")
    assert (made["privileged"], made["network_mode"], made["ipc_mode"], made["auto_remove"]) == (
        True,
        "host",
        "host",
        True,
    )
    # Docker publishes nothing on the host network.
    assert "published_ports" not in made


def test_models_and_patches_are_read_only_and_a_patch_the_image_carries_is_not_mounted():
    volumes = [volume for volume in spec()["volumes"] if not volume.endswith(":rw")]
    assert volumes == [
        "/srv/s/models/o--b/1:/models/b:ro",
        "/srv/s/models/o--d/2:/models/d:ro",
        "/srv/s/patches/1/a.py:/site/a.py:ro",
    ]


def test_what_is_compiled_is_kept_for_the_same_image_alone():
    def kept(image):
        return [volume for volume in spec(image=image)["volumes"] if volume.endswith(":rw")]

    digests = "1" * 64, "2" * 64
    assert kept(f"o/i@sha256:{digests[0]}") == [
        f"/srv/s/cache/compiled/{digests[0]}/vllm:/root/.cache/vllm:rw",
        f"/srv/s/cache/compiled/{digests[0]}/flashinfer:/root/.cache/flashinfer:rw",
        f"/srv/s/cache/compiled/{digests[0]}/triton:/root/.triton:rw",
        f"/srv/s/cache/compiled/{digests[0]}/tilelang:/root/.tilelang:rw",
    ]
    assert not set(kept(f"o/i@sha256:{digests[0]}")) & set(kept(f"o/i@sha256:{digests[1]}"))
    assert kept(f"another/name@sha256:{digests[0]}") == kept(f"o/i@sha256:{digests[0]}"), (
        "a name says nothing"
    )


def test_the_image_may_write_to_its_caches_and_on_the_host_only_root_gets_there():
    made = record()
    outer, *inner = made["directories"]
    assert outer == {"path": "/srv/s/cache", "mode": "0700"}
    writable = [volume.split(":")[0] for volume in made["container"]["volumes"] if volume.endswith(":rw")]
    assert [entry["path"] for entry in inner] == writable and len(writable) == 4
    assert {entry["mode"] for entry in inner} == {"0777"}
    assert all(path.startswith(f"{outer['path']}/") for path in writable)


def test_an_entrypoint_stands_in_for_the_images_own_and_its_end_is_another_container():
    assert "entrypoint" not in spec() and spec()["labels"] == {}
    made = spec(entrypoint=["/opt/nvidia/nvidia_entrypoint.sh", "vllm", "serve"])
    assert made["entrypoint"] == ["/opt/nvidia/nvidia_entrypoint.sh", "vllm", "serve"]
    assert made["command"] == spec()["command"]
    (label,) = made["labels"]
    assert label == "sparkfleet.vllm.instead" and "nvidia_entrypoint.sh" in made["labels"][label]


def test_an_image_has_caches_besides_the_usual_ones_elsewhere_or_not_at_all():
    given = {"b12x": "/root/.cache/b12x", "triton": "/home/vllm/.triton", "flashinfer": False}
    made = record(caches=given)
    kept = [volume for volume in made["container"]["volumes"] if volume.endswith(":rw")]
    folder = f"/srv/s/cache/compiled/{'a' * 64}"
    assert kept == [
        f"{folder}/vllm:/root/.cache/vllm:rw",
        f"{folder}/triton:/home/vllm/.triton:rw",
        f"{folder}/tilelang:/root/.tilelang:rw",
        f"{folder}/b12x:/root/.cache/b12x:rw",
    ]
    made_before = [entry["path"] for entry in made["directories"][1:]]
    assert made_before == [volume.split(":")[0] for volume in kept]


def test_caches_of_an_inventory_are_held_to_what_a_recipe_may_have():
    with pytest.raises(SpecError, match=r"vllm_serve_caches: expected names of small letters.*\.\./x"):
        record(caches={"../x": "/root/x"})


def test_devices_and_limits_are_given_only_when_they_are_asked_for():
    assert not {"devices", "ulimits"} & set(spec())
    made = spec(devices=["/dev/infiniband"], ulimits={"memlock": -1, "nofile": 1048576})
    assert made["devices"] == ["/dev/infiniband:/dev/infiniband:rw"], "no right to make another one"
    assert made["ulimits"] == ["memlock:-1:-1", "nofile:1048576:1048576"]
    assert made["cap_drop"] == ["ALL"] and made["privileged"] is False
    (label,) = made["labels"].values()
    assert "/dev/infiniband" in label and "memlock" in label


@pytest.mark.parametrize(
    ("devices", "allowed", "strange"),
    [
        (["/dev/infiniband/uverbs0"], ["/dev/infiniband"], None),
        (["/dev/infiniband"], ["/dev/infiniband"], None),
        (["/dev/dri", "/dev/infiniband"], ["/dev/infiniband", "/dev/dri"], None),
        (["/dev/infiniband", "/dev/nvme0n1"], ["/dev/infiniband"], "/dev/nvme0n1"),
        (["/dev/infiniband2"], ["/dev/infiniband"], "/dev/infiniband2"),
        (["/dev/infiniband"], [], "/dev/infiniband"),
    ],
)
def test_a_recipe_gets_no_device_that_the_inventory_does_not_allow(devices, allowed, strange):
    if strange is None:
        assert record(devices=devices, allowed_devices=allowed)["container"]["devices"]
        return
    with pytest.raises(SpecError, match=rf"vllm_serve_allowed_devices\), seen {strange}; a device"):
        record(devices=devices, allowed_devices=allowed)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"devices": ["/etc/shadow"], "allowed_devices": ["/etc"]}, "vllm_serve_devices: expected paths below /dev"),
        ({"ulimits": {"memlok": 1}}, "vllm_serve: ulimits.memlok: unknown key; nearest valid key: memlock"),
        ({"ulimits": {"memlock": "1g"}}, "vllm_serve: ulimits.memlock: expected a whole number"),
    ],
)  # fmt: skip
def test_devices_and_limits_of_an_inventory_are_held_to_what_a_recipe_may_have(over, words):
    with pytest.raises(SpecError, match=words):
        record(**over)


def test_what_is_mounted_besides_is_read_only_and_on_record():
    mounts = [
        {"path": "templates/x.jinja", "mount": "/config/x.jinja"},
        {"path": "/etc/fleet/parser.py", "mount": "/config/parser.py"},
    ]
    made = record(mounts=mounts, allowed_paths=["/etc/fleet"])
    assert made["mounts"] == [mounts[0] | {"path": "/srv/s/templates/x.jinja"}, mounts[1]]
    volumes = made["container"]["volumes"]
    assert "/srv/s/templates/x.jinja:/config/x.jinja:ro" in volumes
    assert "/etc/fleet/parser.py:/config/parser.py:ro" in volumes


@pytest.mark.parametrize(
    ("path", "allowed", "words"),
    [
        ("/etc/fleet", [], r"below /srv/s \(vllm_serve_allowed_paths\), seen /etc/fleet"),
        ("/etc/fleetx/y", ["/etc/fleet"], r"below /srv/s, /etc/fleet \(.*seen /etc/fleetx/y"),
        ("cache/compiled", [], "something else than /srv/s/cache, where servers write"),
        ("/srv/s/cache/images/x", [], "something else than /srv/s/cache"),
        ("/srv/s", [], "something else than /srv/s/cache"),
        ("/srv", ["/srv"], "something else than /srv/s/cache"),
        ("../x", [], r"mounts\[0\].path: expected a path in the store"),
    ],
)
def test_a_recipe_gets_nothing_of_the_host_that_the_inventory_does_not_allow(path, allowed, words):
    with pytest.raises(SpecError, match=words):
        record(mounts=[{"path": path, "mount": "/config/x"}], allowed_paths=allowed)


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        (["/models/b"], "seen /models/b beside /models/b"),
        (["/models/b/x.jinja"], "seen /models/b/x.jinja beside /models/b"),
        (["/models"], "seen /models beside /models/b"),
        (["/site"], "seen /site beside /site/a.py"),
        (["/root/.triton/x"], "seen /root/.triton/x beside /root/.triton"),
        (["/config", "/config/x"], "seen /config/x beside /config"),
    ],
)
def test_a_mount_of_an_inventory_has_a_place_to_itself(mounts, words):
    """A recipe is refused for it when its file is read. Of an inventory, and of where a patch goes, that file knows nothing."""
    with pytest.raises(
        SpecError, match=rf"a place of its own for each mount \(serve.mounts\), {words}; move it"
    ):
        record(mounts=[{"path": "x", "mount": mount} for mount in mounts])


def test_a_mount_may_be_where_a_patch_would_go_that_the_image_carries():
    carried = next(patch["target"] for patch in INPUTS["patches"] if not patch["mount"])
    mounts = [{"path": "x", "mount": carried}, {"path": "x", "mount": "/models/bb"}]
    assert len(record(mounts=mounts)["mounts"]) == 2


def test_a_variable_may_be_a_fact_of_the_host_and_the_environment_wins():
    wanted = {"VLLM_HOST_IP": "address", "SPARK": "name"}
    made = record(host_environment=wanted)["container"]["env"]
    assert (made["VLLM_HOST_IP"], made["SPARK"]) == ("192.0.2.7", "spark-7")
    assert record(host_environment=wanted, environment={"SPARK": "x"})["container"]["env"]["SPARK"] == "x"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"NCCL_SOCKET_IFNAME": "interface"}, "which NCCL_SOCKET_IFNAME is .*seen none; set spark_interface"),
        (
            {"X": "{{ ansible_host }}"},
            "vllm_serve_host_environment: expected one of address, interface, name for X",
        ),
    ],
)
def test_a_fact_that_is_not_known_is_missed_before_a_host_is_asked(wanted, words):
    with pytest.raises(SpecError, match=words):
        record(host_environment=wanted)


def test_an_entrypoint_of_an_inventory_is_held_to_what_a_recipe_may_have():
    with pytest.raises(SpecError, match=r"vllm_serve_entrypoint: expected words .*seen: /run\.sh"):
        record(entrypoint=["/run.sh"])


def test_extra_arguments_change_one_nested_value_and_keep_the_rest():
    command = spec(
        extra_arguments={"speculative-config": {"num_speculative_tokens": 2}, "enforce-eager": True}
    )["command"]
    assert command[0] == "/models/b"
    assert '{"method":"mtp","num_speculative_tokens":2}' in command
    assert command[-1] == "--enforce-eager"


def test_it_stays_offline_and_environment_values_are_text():
    assert spec()["env"] == {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "A": "1"}


def test_without_a_gpu_none_is_asked_for():
    assert spec(gpus=False)["device_requests"] == []
    assert spec()["device_requests"][0]["capabilities"] == [["gpu"]]


def test_the_log_is_bounded_unless_it_is_left_to_the_engine():
    made = spec()
    assert made["log_driver"] == "json-file"
    assert made["log_options"] == {"max-size": "50m", "max-file": "4"}, (
        "as text, which is how the engine has it"
    )
    assert not {"log_driver", "log_options"} & set(spec(log_driver=""))


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"image": "vllm/vllm-openai:latest"}, "by digest"),
        ({"models": {}}, "models.body"),
        ({"security": "none"}, "least, fabric, recipe"),
    ],
)
def test_what_does_not_add_up_is_refused(over, words):
    with pytest.raises(SpecError, match=words):
        spec(**over)


def test_merge_leaves_its_inputs_alone():
    base = {"a": {"b": 1}, "c": 1}
    assert merge(base, {"a": {"d": 2}, "c": None}) == {"a": {"b": 1, "d": 2}, "c": None}
    assert base == {"a": {"b": 1}, "c": 1}


def test_models_get_their_path_from_the_lock_and_their_mount_from_the_recipe():
    models = {"body": {"repository": "o/b", "revision": "main", "mount": "/models/b"}}
    locked = {"body": {"repository": "o/b", "commit": "c" * 40, "files": {}}}
    mounted = {"body": {"path": "/srv/s/models/o--b/" + "c" * 40, "mount": "/models/b"}}
    assert mounted_models(models, locked, "/srv/s") == mounted
    made = record(models=models, locked_models=locked, store="/srv/s")
    assert made["models"] == mounted
    assert made["container"]["volumes"][0] == mounted["body"]["path"] + ":/models/b:ro"
    with pytest.raises(SpecError, match="lock.yml"):
        mounted_models(models, {}, "/srv/s")


def test_a_model_with_a_path_needs_no_lock():
    own = {"body": {"path": "/elsewhere/b", "mount": "/models/b"}}
    assert mounted_models(own, {}, "") == own


def test_the_gate_looks_for_every_patch_and_compares_the_host_file_of_a_mounted_one():
    mounted = {"target": "/site/a.py", "md5": "m", "sha256": "s", "host_path": "/srv/p/a.py", "mount": True}
    carried = mounted | {"mount": False}
    assert gate_files([mounted, carried]) == [
        {"path": "/site/a.py", "md5": "m", "sha256": "s", "host_path": "/srv/p/a.py"},
        {"path": "/site/a.py", "md5": "m", "sha256": "s"},
    ]


def test_evidence_is_the_measurement_and_nothing_of_the_run():
    gate = {"drafts": 236, "acceptance_rate": 0.69, "changed": False, "container": {"id": "x"}}
    host = {"driver": "580"}
    assert gate_evidence(gate, host) == {"drafts": 236, "acceptance_rate": 0.69, "host": host}


def test_a_key_in_the_environment_that_is_recorded_is_refused_without_showing_it():
    with pytest.raises(SpecError, match=r"environment\.VLLM_API_KEY") as caught:
        spec(environment={"VLLM_API_KEY": "hush"})
    assert "vllm_serve_api_key" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["HF_TOKEN", "aws_secret_access_key_SECRET", "DB_PASSWORD", "OTHER_API_KEY"])
def test_no_secret_enters_the_record_by_the_environment(name):
    with pytest.raises(SpecError, match=f"environment.{name}: .*recorded") as caught:
        spec(environment={name: "hush"})
    assert "hush" not in str(caught.value)


RECORD = {
    "recipe": "r", "acceptance_floor": 0.4, "minimum_drafts": 200, "memory_fraction": 0.65, "memory_minimum_bytes": None,
    "published": {}, "allow_deeper": False, "measured_depth": 0, "refused": [],
}  # fmt: skip


NO_DRAFTS = {"acceptance_floor": 0.0, "minimum_drafts": 0}


def inputs(**over) -> Any:
    patches = [dict(patch, md5="1", sha256="2") for patch in INPUTS["patches"]]
    return copy.deepcopy(INPUTS) | RECORD | {"patches": patches} | over


def record(**over):
    return serving_record(inputs(**over))


def one_spark() -> str:
    """What serves on a Spark alone, with all that a recipe and an inventory can ask for, as state.json holds it."""
    asked = {
        "entrypoint": ["/entry.sh", "vllm", "serve"],
        "caches": {"b12x": "/root/.cache/b12x"},
        "devices": ["/dev/infiniband"],
        "ulimits": {"memlock": -1},
        "mounts": [{"path": "templates/x.jinja", "mount": "/config/x.jinja"}],
        "host_environment": {"VLLM_HOST_IP": "address"},
        "bind": "192.0.2.7",
        "extra_arguments": {"shutdown-timeout": 20},
    }
    made = [record(), record(**asked), record(security="recipe", gpus=False, log_driver="")]
    return json.dumps(made, indent=1) + "\n"


def test_the_record_of_one_spark_is_what_it_was_before_there_were_units():
    """Byte for byte: another record is another server, and every Spark would restart its own."""
    assert one_spark() == Path(__file__).with_name("records_of_one_spark.json").read_text()


def test_the_record_holds_what_is_started_and_by_what_it_passes():
    made = record()
    assert made["container"] == spec()
    assert made["gate"] == {
        "served_model": "m",
        "base_url": "http://127.0.0.1:8000",
        "speculation": INPUTS["arguments"]["speculative-config"],
        "acceptance_floor": 0.4,
        "minimum_drafts": 200,
    }
    assert [file.get("host_path") for file in made["files"]] == ["/srv/s/patches/1/a.py", None]
    assert json.loads(json.dumps(made)) == made, "it is compared with what a file holds"


PUBLISHED = {
    "source": "somebody, on one Spark",
    "deepest": 1,
    "because": "the third token is hardly ever right",
    "figures": [
        {"num_speculative_tokens": 0, "tokens_per_second": 39.3, "rates": []},
        {"num_speculative_tokens": 4, "tokens_per_second": 52.4, "rates": [0.65, 0.43, 0.29, 0.21]},
    ],
}
DEEP = {"speculative-config": {"num_speculative_tokens": 4}}


def test_deeper_than_what_paid_is_refused_with_reason_and_figures_unless_it_is_allowed():
    for inputs in ({"extra_arguments": DEEP}, {"arguments": DEEP | {"served-model-name": "m"}}):
        with pytest.raises(SpecError) as caught:
            record(published=PUBLISHED, **inputs)
        for words in (
            "at most 1, the deepest that paid on this body, seen 4: the third token is hardly ever right",
            "no speculation 39.3 tok/s; 4 tokens 52.4 tok/s at 65/43/29/21 % (somebody, on one Spark)",
            "Do: take num_speculative_tokens: 1, or set vllm_serve_allow_deeper: true",
        ):
            assert words in str(caught.value)
    assert record(published=PUBLISHED, extra_arguments=DEEP, allow_deeper=True)
    assert record(extra_arguments=DEEP), "nothing is published, so nothing is known against it"


def test_what_was_measured_here_counts_for_more_than_what_was_published():
    assert record(published=PUBLISHED, extra_arguments=DEEP, measured_depth=4)
    with pytest.raises(SpecError, match="at most 1"):
        record(published=PUBLISHED, extra_arguments=DEEP, measured_depth=3)


def test_a_schedule_of_depths_is_as_deep_as_its_deepest():
    schedule = {"num_speculative_tokens": 1, "num_speculative_tokens_per_batch_size": [[1, 4, 1], [5, 16, 3]]}
    with pytest.raises(SpecError, match="at most 1, the deepest that paid on this body, seen 3"):
        record(published=PUBLISHED, extra_arguments={"speculative-config": schedule})


def test_where_no_depth_paid_there_is_to_be_none():
    with pytest.raises(SpecError, match="Do: serve without speculation, or"):
        record(published=PUBLISHED | {"deepest": 0})


def test_a_port_beside_the_published_one_is_refused():
    for port in (9000, None):
        with pytest.raises(SpecError, match="^vllm_serve_extra_arguments.port: .*set vllm_serve_port$"):
            record(extra_arguments={"port": port})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"extra_arguments": {"max_model_len": 1}},
            "serve arguments: max_model_len: .*nearest valid key: max-model-len",
        ),
        (
            {"extra_arguments": {"speculative-config": {"num_speculative_tokens": 0}}},
            "num_speculative_tokens: expected 1 to 64, seen 0",
        ),
        (
            {"arguments": {"spec-method": "mtp"}, "acceptance_floor": 0.0, "minimum_drafts": 0},
            "does not belong in a recipe's arguments",
        ),
        (
            {"arguments": {}, "extra_arguments": {"speculative-config": {"method": "mtp"}}},
            "num_speculative_tokens: required and missing",
        ),
    ],
)
def test_arguments_that_an_inventory_makes_of_a_recipes_are_refused_before_a_host_is_asked(inputs, words):
    """By themselves, without image and models: the filter serving_refusals sees no host."""
    known = {
        **{
            "image": "a/b:c",
            "entrypoint": [],
            "caches": {},
            "devices": [],
            "allowed_devices": [],
            "models": {},
            "patches": [],
            "ulimits": {},
            "mounts": [],
            "host_environment": {},
            "host_facts": {},
            "allowed_paths": [],
            "store": "/srv/s",
            "topology": {},
            "security": "least",
            "published": {},
            "refused": [],
            "measured_depth": 0,
            "allow_deeper": False,
        },
        **{"acceptance_floor": 0.4, "minimum_drafts": 200},
    }
    asked: Any = {"arguments": INPUTS["arguments"], "extra_arguments": {}, **known, **inputs}
    (refusal,) = serving_refusals(asked)
    assert re.search(words, refusal)
    with pytest.raises(SpecError, match=words):
        record(**inputs)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"refused": [{"vllm": "0.25.*", "because": "x"}]}, "vllm_serve: refused[0].vllm: expected a range of releases"),
        ({"refused": [{"vllm": "<1.0"}]}, "refused[0].because: required and missing"),
        ({"published": {"deepest": 1}}, "vllm_serve: published.source: required and missing"),
        ({"published": PUBLISHED | {"figures": [{"rates": []}]}}, "figures[0].num_speculative_tokens: required"),
    ],
)  # fmt: skip
def test_rules_of_an_inventory_are_held_to_the_shape_that_a_recipe_has(inputs, says):
    with pytest.raises(SpecError) as caught:
        record(**inputs)
    assert says in str(caught.value)


def test_what_is_not_deeper_passes():
    for extra in ({}, {"speculative-config": {"num_speculative_tokens": 1}}):
        assert record(published=PUBLISHED, extra_arguments=extra)
    assert record(published=PUBLISHED, extra_arguments={"speculative-config": None}, **NO_DRAFTS)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        # Replaces the recipe's arguments, speculation with them.
        (
            {"arguments": {"max-model-len": 16384}},
            "expected a speculative-config, since 200 drafts and 40% of",
        ),
        ({"extra_arguments": {"speculative-config": None}}, "seen serve arguments without one"),
        ({"arguments": {}, "minimum_drafts": 0}, "since 0 drafts and 40%"),
        ({"arguments": {}, "acceptance_floor": 0.0}, "since 200 drafts and 0%"),
        ({"minimum_drafts": 0}, "expected vllm_serve_minimum_drafts of at least 1"),
        ({"minimum_drafts": 0, "acceptance_floor": 0.0}, "expected vllm_serve_minimum_drafts of at least 1"),
    ],
)
def test_speculation_and_what_is_expected_of_it_go_together(inputs, words):
    with pytest.raises(SpecError, match=words):
        record(**inputs)


def test_an_image_of_an_inventory_is_held_to_the_recipes_rules_by_its_tag():
    rules = [{"vllm": ">=0.25,<0.27", "because": "it dies at the start"}]
    with pytest.raises(
        SpecError, match=r"seen vLLM 0.26.0 in vllm/vllm-openai:v0.26.0@sha256:a+: it dies at the start"
    ):
        record(refused=rules, image="vllm/vllm-openai:v0.26.0@sha256:" + "a" * 64)
    assert record(refused=rules, image="vllm/vllm-openai:v0.27.0@sha256:" + "a" * 64)
    assert record(refused=rules)


def test_the_first_of_several_names_is_asked_for_and_the_mount_where_there_is_none():
    assert record(extra_arguments={"served-model-name": ["a", "b"]})["gate"]["served_model"] == "a"
    assert record(arguments={}, **NO_DRAFTS)["gate"]["served_model"] == "/models/b"
    assert record(arguments={}, **NO_DRAFTS)["gate"]["speculation"] is None


def test_a_variant_differs_in_its_speculation_and_in_nothing_else():
    served = record()
    kept = copy.deepcopy(served)
    four = {"method": "mtp", "num_speculative_tokens": 4}
    made = variant(served, four)
    assert made == record(arguments=INPUTS["arguments"] | {"speculative-config": four})
    off = variant(served, None)
    assert off == record(arguments={"served-model-name": "m"}, **NO_DRAFTS)
    assert off["container"]["volumes"] == served["container"]["volumes"], "the draft stays mounted"
    assert variant(served, served["gate"]["speculation"]) == served == kept


def test_a_variant_of_a_server_without_speculation_has_it_at_the_end():
    off = record(arguments={"served-model-name": "m"}, **NO_DRAFTS)
    one = {"method": "mtp", "num_speculative_tokens": 1}
    made = variant(off, one)
    assert made["container"]["command"] == [
        *off["container"]["command"], "--speculative-config", '{"method":"mtp","num_speculative_tokens":1}',
    ]  # fmt: skip
    assert made["gate"]["minimum_drafts"] == 200, "some drafts are expected where a server drafts"
    assert variant(made, None) == off


def test_a_server_has_as_long_to_stop_as_it_lets_answers_end_and_the_seconds_of_any_other():
    patient = record(extra_arguments={"shutdown-timeout": 120})
    assert (stop_timeout(record(), 30), stop_timeout(patient, 30)) == (30, 150)


def test_what_is_not_on_record_has_the_seconds_of_any_other_server():
    assert stop_timeout({}, 30) == 30


FABRIC = {
    "privileged": False,
    "network_mode": "host",
    "ipc_mode": "private",
    "shm_size": "1g",
    "cap_drop": ["ALL"],
    "capabilities": ["IPC_LOCK"],
    "security_opts": ["no-new-privileges"],
    "auto_remove": False,
    "ulimits": ["memlock:-1:-1"],
}
UNIT = {
    "topology": {"nodes": 2},
    "security": "fabric",
    "entrypoint": ["vllm", "serve"],
    "bind": "192.0.2.7",
    "devices": ["/dev/infiniband"],
}


def of(rank: int = 0, **over):
    """The record of a member of a unit."""
    return record(**UNIT | {"unit": unit.member(rank)} | over)


def test_a_profile_for_the_fabric_between_least_and_all():
    made = spec(security="fabric", bind="192.0.2.7")
    assert {name: made[name] for name in FABRIC} == FABRIC
    assert "published_ports" not in made, "there is nothing to publish on the host's network"
    assert spec(security="fabric", ulimits={"memlock": 1024, "stack": 1})["ulimits"] == [
        "memlock:1024:1024",
        "stack:1:1",
    ]
    shared = spec(security="fabric", ipc="host")
    assert shared["ipc_mode"] == "host" and "shm_size" not in shared


@pytest.mark.parametrize(
    ("bind", "host", "asked"),
    [
        ("192.0.2.7", "192.0.2.7", "http://192.0.2.7:8000"),
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:8000"),
        ("2001:db8::7", "2001:db8::7", "http://[2001:db8::7]:8000"),
    ],
)
def test_on_the_hosts_network_a_server_listens_where_it_is_asked(bind, host, asked):
    """Whatever the recipe says: elsewhere the port that is published is what limits access."""
    made = record(security="fabric", bind=bind, extra_arguments={"host": "0.0.0.0"})
    assert options(made["container"]["command"])["host"] == (host,)
    assert made["gate"]["base_url"] == asked
    assert made.keys() == record().keys(), "one Spark is no unit"
    with pytest.raises(SpecError, match="vllm_serve_bind: expected an IP address"):
        record(security="fabric", bind="spark-1")


def test_head_and_worker_differ_in_what_follows_from_the_rank_and_in_nothing_else():
    head, worker = of(0), of(1)
    assert head["unit"] == {
        "name": "pair",
        "rank": 0,
        "nodes": 2,
        "members": [
            {"host": "spark-1", "address": "192.0.2.1"},
            {"host": "spark-2", "address": "192.0.2.2"},
        ],
        "port": 8622,
        "master_port": 29501,
    }
    assert worker["unit"] == head["unit"] | {"rank": 1}
    assert [name for name in head if head[name] != worker[name]] == ["container", "gate", "unit"]
    first, second = head["container"], worker["container"]
    assert [name for name in first if first[name] != second[name]] == [
        "command",
        "env",
        "entrypoint",
        "labels",
    ]
    assert json.loads(json.dumps(worker)) == worker


def test_the_arguments_of_a_unit():
    alone = record(**UNIT | {"topology": {}})["container"]["command"]
    meet = ["--master-addr", "192.0.2.1", "--master-port", "29501"]
    size = ["--tensor-parallel-size", "2", "--pipeline-parallel-size", "1", "--nnodes", "2"]
    late = ["--distributed-timeout-seconds", "1800"]
    assert of(0)["container"]["command"] == [*alone, *late, *size, "--node-rank", "0", *meet]
    without = [word for word in alone if word not in ("--host", "192.0.2.7", "--port", "8000")]
    assert of(1)["container"]["command"] == [*without, *late, *size, "--node-rank", "1", *meet, "--headless"]
    given = {"extra_arguments": {"distributed-timeout-seconds": 60, "host": "0.0.0.0"}}
    assert options(of(1, **given)["container"]["command"])["distributed-timeout-seconds"] == ("60",)
    assert "host" not in options(of(1, security="recipe", **given)["container"]["command"])
    left_to_vllm = of(0, extra_arguments={"distributed-timeout-seconds": None})["container"]["command"]
    assert "--distributed-timeout-seconds" not in left_to_vllm


def test_the_variables_of_a_member_are_its_hosts_and_the_recipe_has_the_last_word_on_others():
    made = of(1)["container"]["env"]
    assert made["VLLM_HOST_IP"] == "192.0.2.2" and made["NCCL_IB_HCA"] == "roceP2p1s0f0,rocep1s0f0"
    assert made["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] == "120"
    own = {"NCCL_IB_HCA": "rocep1s0f0", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": 60}
    made = of(1, environment=own)["container"]["env"]
    assert made["NCCL_IB_HCA"] == "rocep1s0f0" and made["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] == "60"
    assert of(1, devices=[])["container"]["env"]["NCCL_IB_DISABLE"] == "1"


def test_a_program_runs_the_server_of_a_member_and_has_its_folder():
    made = of(1, extra_arguments={"shutdown-timeout": 20})["container"]
    words = made["entrypoint"]
    assert words[:2] == ["python3", "/opt/sparkfleet/unit"] and words[-3:] == ["--", "vllm", "serve"]
    assert words[words.index("--stop-within") + 1] == "45" and words[words.index("--port") + 1] == "8622"
    assert json.loads(made["labels"]["sparkfleet.vllm.instead"])["entrypoint"] == words
    assert made["volumes"][-2:] == [
        f"{unit.SUPERVISOR}:/opt/sparkfleet/unit:ro",
        "/var/lib/s/unit:/run/sparkfleet/unit:rw",
    ]


def test_nobody_asks_a_worker_and_no_draft_is_expected_of_it():
    assert of(0)["gate"] == record(**UNIT | {"topology": {}})["gate"]
    assert of(1)["gate"] == of(0)["gate"] | {"base_url": "", "acceptance_floor": 0.0, "minimum_drafts": 0}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"security": "least"}, "expected vllm_serve_security: fabric for a unit of 2 Sparks, seen least: .*; take"),
        ({"entrypoint": []}, "image.entrypoint: required and missing with a topology"),
        ({"topology": {"nodes": 2, "tensor_parallel": 1}}, "topology: expected tensor_parallel times .* seen 1 times 1 for 2"),
        ({"topology": {"nodes": 2, "pipeline_parallel": 2}}, "serve.arguments.speculative-config: expected no speculation"),
        ({"topology": {"nodes": "2"}}, "vllm_serve: topology.nodes: expected a whole number"),
        ({"topology": {"tensor_parallel": 2}}, "vllm_serve: topology.nodes: required and missing"),
        ({"extra_arguments": {"distributed-executor-backend": "ray"}}, "distributed-executor-backend: expected mp"),
        ({"extra_arguments": {"nnodes": 2}}, "nnodes: .* topology of the recipe and spark_unit of the inventory give it"),
        ({"extra_arguments": {"data-parallel-size": 2}}, "data-parallel-size: .* the gateway spreads requests over Sparks better"),
        ({"environment": {"VLLM_HOST_IP": "192.0.2.1"}}, "expected no VLLM_HOST_IP in the environment of a unit .* spark_unit_interface"),
        ({"host_environment": {"GLOO_SOCKET_IFNAME": "name"}}, "expected no GLOO_SOCKET_IFNAME in the environment"),
        ({"mounts": [{"path": "x", "mount": "/opt/sparkfleet/unit/y"}]}, "seen /opt/sparkfleet/unit/y beside /opt/sparkfleet/unit;"),
    ],
)  # fmt: skip
def test_what_makes_no_unit_is_refused_before_a_host_is_asked(over, says):
    """By inputs alone: in which unit the host is, nobody knows yet."""
    assert serving_refusals(asked := inputs(**UNIT)) == [] and not asked["unit"]
    with pytest.raises(SpecError, match=says):
        of(**over)


def test_what_a_unit_may_not_have_one_spark_may():
    record(environment={"VLLM_HOST_IP": "192.0.2.1"}, topology={"nodes": 1})
    record(mounts=[{"path": "x", "mount": "/opt/sparkfleet/unit"}])


def test_a_unit_that_nobody_has_found_yet_is_no_record():
    with pytest.raises(
        SpecError, match=r"vllm_serve_unit: expected the unit of the host, one of 2 Sparks, seen none"
    ):
        of(unit={})


def test_what_the_fabric_takes_is_told():
    (network, device, memory) = weakened(inputs(**UNIT))
    assert "the network of the host" in network and "/dev/infiniband" in device and "without limit" in memory
    assert weakened(inputs()) == []


def test_a_unit_has_variants_as_one_spark_has_and_none_with_stages():
    deeper = {"method": "mtp", "num_speculative_tokens": 2}
    assert variant(of(0), deeper)["gate"]["minimum_drafts"] == 200
    assert variant(of(1), deeper)["gate"] == of(1)["gate"] | {"speculation": deeper}
    assert options(variant(of(1), None)["container"]["command"])["node-rank"] == ("1",)
    staged = of(
        0,
        topology={"nodes": 2, "pipeline_parallel": 2},
        extra_arguments={"speculative-config": None},
        **NO_DRAFTS,
    )
    assert variant(staged, None) == staged
    with pytest.raises(SpecError, match=r"expected no speculation with 2 stages .* tune a recipe"):
        variant(staged, deeper)
