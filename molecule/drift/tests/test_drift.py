"""Edits of a host by hand: each is found under its name with what was expected and seen, and nothing else is."""

from __future__ import annotations

import json
import re

import pytest
import spark
from spark import NAME, STATE, TARGET, drift, expect, instead, on

DIGEST = """
find /srv/sparkfleet /var/lib/sparkfleet /etc /opt/sparkfleet -xdev \\( -type f -o -type l \\) -printf '%p %s %m %T@ %C@\\n' | sort | sha256sum
docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.State}}'
docker images --digests --no-trunc --format '{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}}'
docker inspect --format '{{.Image}} {{.State.StartedAt}} {{.RestartCount}} {{json .Config}} {{json .HostConfig}}' $(docker ps --all --quiet)
"""


def clean(report: spark.Report) -> None:
    assert not report.host["findings"] and not report.host["unknown"], report.host
    assert (report.code, report.host["verdict"]) == (0, "clean")
    assert set(report.host["subjects"].values()) == {"ok"}


def test_a_clean_host_shows_nothing_and_is_not_touched():
    before = on(DIGEST)
    clean(drift())
    assert on(DIGEST) == before


def test_after_a_boot_it_is_as_clean():
    spark.docker("restart", "--time=60", f"sparkfleet-lab-{spark.HOST}")
    spark.wait("systemctl is-system-running --wait | grep -E 'running|degraded' >/dev/null")
    spark.wait("(: </dev/tcp/127.0.0.1/22) 2>/dev/null")
    spark.serves()
    clean(drift())


def test_restart_policy_and_unit():
    on(f"docker update --restart=always {NAME}")
    on(f"systemctl disable --quiet {NAME}; systemctl edit --stdin {NAME} <<<$'[Service]\\nRestartSec=1' 2>/dev/null ||"
       f" (mkdir -p /etc/systemd/system/{NAME}.service.d; printf '[Service]\\nRestartSec=1\\n'"
       f" >/etc/systemd/system/{NAME}.service.d/override.conf; systemctl daemon-reload)")  # fmt: skip
    report = drift()
    on(f"docker update --restart=on-failure:3 {NAME}")
    on(f"systemctl revert {NAME}; systemctl enable --quiet {NAME}")
    expect(
        report,
        ("container: restart-policy", "on-failure, at most 3 times", "always"),
        ("boot: boot-unit-disabled", "disabled"),
        ("boot: boot-unit-changed", "override.conf"),
    )


def test_a_stopped_server():
    on(f"docker stop --time 5 {NAME}")
    report = drift()
    on(f"docker start {NAME}")
    spark.serves()
    expect(report, ("container: stopped", "exited since"))
    assert report.host["subjects"]["server"] == "unknown"


@pytest.mark.usefixtures("aside")
class TestAServerThatWasStartedByHand:
    def test_no_server(self):
        expect(drift(), ("container: container-missing", NAME))

    def test_the_same_one_is_no_drift(self):
        with instead():
            clean(drift())

    def test_everything_that_a_container_is_started_with(self):
        """At once, and each is told under its own name."""

        def change(spec):
            words = list(spec["command"])
            words[words.index("--max-model-len") + 1] = "2048"
            words.remove("--enable-prefix-caching")
            place = words.index("--speculative-config") + 1
            words[place] = json.dumps(json.loads(words[place]) | {"num_speculative_tokens": 2})
            words[words.index("--served-model-name") + 1] = "another"
            volumes = [volume for volume in spec["volumes"] if TARGET not in volume]
            return {
                "command": [*words, "--max-num-seqs", "2"],
                "env": {**spec["env"], "HF_HUB_OFFLINE": "0", "EXTRA": "1", "HF_TOKEN": "hf_of_somebody"},
                "volumes": [volumes[0].replace(":ro", ":rw"), *volumes[1:], "/tmp:/data"],
                "labels": {},
                "flags": ["--cap-add=SYS_PTRACE", "--pid=host", "--cpus=1"],
                "published_ports": ["8000:8000"],
                "restart": "no",
            }

        with instead(change):
            report = drift()
        expect(
            report,
            ("container: argument", "--max-model-len 4096", "--max-model-len 2048"),
            ("container: argument", "--enable-prefix-caching", "not set"),
            ("container: argument", "--max-num-seqs not set", "--max-num-seqs 2"),
            ("container: speculation", "num_speculative_tokens: 1", "num_speculative_tokens: 2"),
            ("container: served-model", "stub", "another"),
            ("container: environment", "HF_HUB_OFFLINE=1", "HF_HUB_OFFLINE=0"),
            ("container: environment", "EXTRA not set", "EXTRA=1"),
            ("container: environment", "HF_TOKEN not set", "its value is not shown"),
            ("container: mount", "/models/body, read-only", "/models/body, writable"),
            ("container: mount", TARGET, f"nothing mounted at {TARGET}"),
            ("container: mount", "nothing mounted at /data"),
            ("container: label", "sparkfleet.vllm.patches"),
            ("patches: patch-in-container", "gemma4_mtp.py"),
            ("container: security", "added capabilities: none", "SYS_PTRACE"),
            ("container: security", "PID namespace", "host"),
            ("container: limit", "CPUs"),
            ("container: port", "127.0.0.1:8000:8000", "0.0.0.0:8000:8000"),
            ("container: restart-policy", "no"),
        )
        assert "hf_of_somebody" not in json.dumps(report.data) + report.page + report.output

    def test_another_image_under_the_same_name(self):
        on(
            "docker pull --quiet sparkfleet-lab/stub:2; docker tag sparkfleet-lab/stub:2 sparkfleet-lab/stub:latest"
        )
        digest = spark.recorded()["image"].partition("@")[2]
        with instead(lambda spec: {"image": "sparkfleet-lab/stub"}):
            expect(drift(), ("container: image", digest))

    def test_a_program_file_that_was_edited_inside(self):
        with instead():
            on(f"docker exec {NAME} sed -i '$a # tried something' /opt/stub/server.py")
            expect(drift(), ("container: file-in-container", "/opt/stub/server.py changed"))

    def test_a_draft_that_is_never_accepted(self):
        with instead(lambda spec: {"env": {**spec["env"], "STUB_ACCEPTANCE": "0"}}):
            ask = {"model": "stub", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 400}
            on(f"curl -fsS -o /dev/null -d '{json.dumps(ask)}' http://127.0.0.1:8000/v1/chat/completions")
            expect(
                drift(),
                ("container: environment", "STUB_ACCEPTANCE=0"),
                ("server: acceptance", "at least 40%", "0.0% of 399 drafts"),
            )

    def test_a_server_that_does_not_do_as_it_was_told(self):
        over = {"STUB_NO_SPEC": "1", "STUB_CACHE_DTYPE": "auto"}
        with instead(lambda spec: {"env": {**spec["env"], **over}}):
            expect(
                drift(),
                ("container: environment", "STUB_NO_SPEC=1"),
                ("container: environment", "STUB_CACHE_DTYPE=auto"),
                ("server: speculation-ignored", "passed on the command line"),
                ("server: effective-config", "--kv-cache-dtype fp8", "cache_dtype=auto"),
            )

    def test_another_server_on_the_port(self):
        def change(spec):
            return {"name": "mine", "command": [*spec["command"][:-1], "mine"], "flags": ["--no-healthcheck"]}

        on(spark.by_hand(**change(spark.recorded())))
        try:
            spark.serves()
            expect(
                drift(),
                ("host: port-taken", "port 8000", "container mine"),
                ("host: gpu-shared", "container mine"),
                ("container: container-missing", NAME),
            )
        finally:
            on("docker rm --force mine")


def test_a_neighbour_on_the_gpu_is_a_warning():
    on("docker run --detach --name neighbour --gpus all --entrypoint sleep sparkfleet-lab/stub:2 600")
    report = drift()
    on("docker rm --force neighbour")
    assert report.kinds == {"host: gpu-shared": 1} and report.says("gpu-shared", "neighbour")
    assert (report.code, report.host["verdict"]) == (0, "warning")


def test_a_patch_in_the_store():
    path = json.loads(spark.read(STATE))["current"]["serving"]["files"][0]["host_path"]
    # In place: the process would load it at its next start.
    on(f"cp -p {path} /root/patch; echo '# tried something' >>{path}")
    edited = drift()
    # As an editor does it: the process keeps the old file.
    on(
        f"cat /root/patch >{path}; touch -r /root/patch {path}; mv {path} /root/kept; cp /root/patch {path}; echo >>{path}"
    )
    replaced = drift()
    on(f"mv /root/kept {path}; docker restart --time 5 {NAME}")
    spark.serves()
    for report in (edited, replaced):
        expect(report, ("patches: patch-store", path))
    clean(drift())


def test_driver_engine_and_record():
    on("""
        cp -p /usr/bin/nvidia-smi /root/nvidia-smi; sed -i 's/580.95.05/570.12.01/' /usr/bin/nvidia-smi
        cp -p /etc/docker/daemon.json /root/daemon.json
        echo '{"registry-mirrors": ["http://192.0.2.1:5000"], "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}' \
            >/etc/docker/daemon.json
        cp -p /var/lib/sparkfleet/state.json /root/state.json; rm /var/lib/sparkfleet/state.json
    """)  # fmt: skip
    report = drift()
    on("""
        mv /root/nvidia-smi /usr/bin/nvidia-smi; mv /root/daemon.json /etc/docker/daemon.json
        mv /root/state.json /var/lib/sparkfleet/state.json
    """)
    expect(
        report,
        ("host: driver-too-old", "580", "570.12.01"),
        ("engine: daemon-json", "172.31.250.10:5000", "192.0.2.1"),
        ("engine: engine-not-reloaded", "registry-mirrors"),
        ("record: never-passed", "nothing on record"),
    )


def test_an_environment_of_the_modules_that_lost_a_package():
    on("mv /opt/sparkfleet/venv/lib/python3*/site-packages/docker-*.dist-info /root/")
    report = drift()
    on("mv /root/docker-*.dist-info /opt/sparkfleet/venv/lib/python3*/site-packages/")
    expect(report, ("engine: environment", "docker", "not installed"))
    assert report.host["subjects"]["models"] == "ok"
    assert {report.host["subjects"][name] for name in ("container", "server", "record")} == {"unknown"}


def test_a_driver_other_than_the_one_that_passed():
    passed = json.loads(spark.read(STATE))["current"]["gate"]["host"]
    assert passed["driver"] == "580.95.05" and passed["engine"] and passed["toolkit"]
    on("cp -p /usr/bin/nvidia-smi /root/nvidia-smi; sed -i 's/580.95.05/590.11.02/' /usr/bin/nvidia-smi")
    report = drift()
    on("mv /root/nvidia-smi /usr/bin/nvidia-smi")
    expect(report, ("host: driver-changed", "580.95.05", "590.11.02"))


def test_a_recipe_that_moved_on_is_told_from_an_edit():
    report = drift(vllm_serve_extra_arguments={"max-num-seqs": 8})
    expect(
        report,
        ("container: argument", "--max-num-seqs 8", "--max-num-seqs not set"),
        ("record: not-deployed", "serves what passed here last"),
    )


def test_a_run_at_work_is_not_called_drift():
    on(f"docker stop --time 5 {NAME}")
    held = {"version": 1, "run": "1", "holder": "me@controller", "controller": "", "since": "2026-11-24T04:00:00Z", "pid": 1, "lease": 120, "playbook": "site.yml"}  # fmt: skip
    on(f"echo {json.dumps(json.dumps(held))} >/var/lib/sparkfleet/run.json")
    report = drift()
    on(f"rm /var/lib/sparkfleet/run.json; docker start {NAME}")
    spark.serves()
    assert report.host["verdict"] == "held" and not report.host["findings"]
    assert "me@controller is at work here since 2026-11-24T04:00:00Z" in report.output
    assert report.code == 2


def test_a_host_that_does_not_answer_is_in_the_report():
    report = drift(ansible_port=1)
    assert report.host["verdict"] == "unknown" and report.code == 2
    assert set(report.host["subjects"].values()) == {"unknown"}
    assert re.search(r"drifts .*the host did not answer", report.output)


def test_models_and_the_run_that_mends_them():
    model = json.loads(spark.read(STATE))["current"]["serving"]["models"]["body"]["path"]
    names = on(f"cd {model}; find . -type f -size +0 -printf '%P\\n' | sort").split()
    cut, touched, changed, gone = names[:4]
    on(f"cd {model}; truncate --size=-1 {cut}; touch {touched}; rm {gone}; echo x >notes.txt;"
       f" printf x | dd of={changed} bs=1 conv=notrunc status=none")  # fmt: skip
    stat = drift()
    full = drift(drift_verify="full")
    ran = spark.playbook("site")
    assert ran.returncode == 0, ran.stdout
    on(f"rm -f {model}/notes.txt")
    expect(
        stat,
        ("models: model-changed", cut, "bytes"),
        ("models: model-changed", touched, "drift_verify=full"),
        ("models: model-changed", changed, "drift_verify=full"),
        ("models: model-missing", gone),
        ("models: model-extra", "notes.txt"),
    )
    expect(
        full,
        ("models: model-changed", cut, "bytes"),
        ("models: model-changed", changed, "sha256"),
        ("models: model-missing", gone),
        ("models: model-extra", "notes.txt"),
    )
    # What was mended lies where the models are; the server has loaded what was there before.
    after = drift()
    on(f"docker restart --time 5 {NAME}")
    spark.serves()
    expect(after, ("models: mount-stale", "/models/body"))
    clean(drift())
