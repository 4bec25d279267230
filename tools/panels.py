"""What is on the dashboards: their panels, with every query. tools/dashboards.py makes them.

A query names a series that Prometheus records where there is one (roles/monitoring/templates/rules.yml.j2). `$spark` stands for the Spark
that somebody chooses.
"""

from __future__ import annotations

from dataclasses import dataclass

TIME, STAT, TABLE = "time", "stat", "table"
RATE, COUNT, SHARE, SECONDS, BYTES, CELSIUS = "suffix: tok/s", "short", "percentunit", "s", "bytes", "celsius"
BY_SPARK = "{{spark}}"


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    """A unit of Grafana."""
    bad: str
    """What it shows, and what to do when it looks bad."""
    queries: tuple[tuple[str, str], ...]
    """Each expression with the text of its lines."""
    kind: str = TIME
    most: float | None = None
    """Where the axis of values ends; it begins at 0."""


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    one_spark: bool = False
    """Whether somebody chooses a Spark for it."""


FLEET = Board(
    "sparkfleet-fleet",
    "Sparks: fleet",
    "All Sparks side by side.",
    (
        (
            "Now",
            (
                Panel(
                    "Sparks that answer",
                    COUNT,
                    "Servers that Prometheus reaches. Fewer than there are Sparks: run status.yml, which names the others and says why.",
                    (('sum(up{job="vllm"})', ""),),
                    STAT,
                ),
                Panel(
                    "Tokens a second",
                    RATE,
                    "All Sparks together. None while requests run: look for SparkEngineWedged among the alerts.",
                    (("sum(sparkfleet:tokens:rate5m)", ""),),
                    STAT,
                ),
                Panel(
                    "Requests",
                    COUNT,
                    "Running and waiting ones. Many that wait for long: add Sparks of that model, or lower the limits of the keys.",
                    (
                        ("sum(sparkfleet:requests:running)", "running"),
                        ("sum(sparkfleet:queue:requests)", "waiting"),
                    ),
                    STAT,
                ),
                Panel(
                    "Alerts that fire",
                    COUNT,
                    "More than 0: each alert links its entry in the troubleshooting page.",
                    (('count(ALERTS{alertstate="firing"}) or vector(0)', ""),),
                    STAT,
                ),
                Panel(
                    "Runs at work",
                    COUNT,
                    "Sparks that a playbook has at the moment. Their alerts are silent. One for hours: see who holds the lock (run.json).",
                    (("sum(sparkfleet:run:held)", ""),),
                    STAT,
                ),
            ),
        ),
        (
            "Serving",
            (
                Panel(
                    "Tokens by Spark",
                    RATE,
                    "One line far below the others under the same load: open the dashboard of that Spark.",
                    (("sparkfleet:tokens:rate5m", BY_SPARK),),
                ),
                Panel(
                    "Waiting requests by Spark",
                    COUNT,
                    "One Spark alone has a queue: see whether the gateway sends it too much. All have one: add Sparks.",
                    (("sparkfleet:queue:requests", BY_SPARK),),
                ),
                Panel(
                    "Time to first token, p95",
                    SECONDS,
                    "It rises with the queue and with long prompts. It rises without them: look at heat and memory of the Spark.",
                    (("sparkfleet:ttft:p95_5m", BY_SPARK),),
                ),
                Panel(
                    "Time between tokens, p95",
                    SECONDS,
                    "It rises with the number of running requests. It rises alone: look at the clocks of the GPU.",
                    (("sparkfleet:token_latency:p95_5m", BY_SPARK),),
                ),
                Panel(
                    "KV cache in use",
                    SHARE,
                    "Near 100% requests wait or are put aside: send fewer at once, or shorten max-model-len in the recipe.",
                    (("sparkfleet:kv_cache:ratio", BY_SPARK),),
                    most=1,
                ),
                Panel(
                    "Accepted drafts",
                    SHARE,
                    "A Spark below its floor: run verify.yml, which measures with known prompts, and then drift.yml.",
                    (
                        ("sparkfleet:acceptance:ratio15m", BY_SPARK),
                        ("max(sparkfleet:acceptance:floor)", "floor"),
                    ),
                    most=1,
                ),
            ),
        ),
        (
            "Hosts",
            (
                Panel(
                    "Memory available",
                    BYTES,
                    "Host and GPU share it. Below 4 GiB a Spark may freeze: end what else runs there, or lower gpu-memory-utilization.",
                    (("sparkfleet:memory:available_bytes", BY_SPARK),),
                ),
                Panel(
                    "GPU temperature",
                    CELSIUS,
                    "One Spark hotter than the others: free its air inlets, and give it room.",
                    (("sparkfleet:gpu:temperature_celsius", BY_SPARK),),
                ),
                Panel(
                    "Disk free",
                    SHARE,
                    "Below 10%: run prune.yml, or free space there.",
                    (("min by (host) (sparkfleet:disk:free_ratio)", "{{host}}"),),
                    most=1,
                ),
            ),
        ),
        (
            "What serves",
            (
                Panel(
                    "On record",
                    "string",
                    "One line for each Spark: recipe, image, and the digest of all that the lock names. They differ within a recipe: run "
                    "site.yml without --limit.",
                    (("max by (spark, recipe, model, image, lock) (sparkfleet_served_info)", ""),),
                    TABLE,
                ),
                Panel(
                    "Verdict of the watchdog",
                    "string",
                    "bad or down: open the dashboard of the Spark, and read verdict.json there.",
                    (("max by (spark, verdict) (sparkfleet_watchdog_verdict) == 1", ""),),
                    TABLE,
                ),
                Panel(
                    "At the gateways",
                    COUNT,
                    "1: the gateway sends it requests. 0: it is down or drained; if it serves, run site.yml, which lets it in again.",
                    (("sparkfleet:gateway:up", "{{gateway}} → {{spark}}"),),
                    most=1,
                ),
                Panel(
                    "Gate asked last",
                    SECONDS,
                    "Time since the server passed. Older than a month: run verify.yml.",
                    (("sparkfleet:gate:age_seconds", BY_SPARK),),
                ),
                Panel(
                    "Differences from recipe and lock",
                    COUNT,
                    "What the last run of drift.yml found. More than 0: read its drift.html, then run site.yml.",
                    (("max by (spark) (sparkfleet_drift_findings)", BY_SPARK),),
                ),
            ),
        ),
    ),
)

SPARK = Board(
    "sparkfleet-spark",
    "Sparks: one Spark",
    "One Spark, from its requests down to its GPU.",
    (
        (
            "Requests",
            (
                Panel(
                    "Tokens",
                    RATE,
                    "Made and read ones. None is made while requests run: the engine is wedged; the watchdog restarts it in mode act.",
                    (
                        ('sparkfleet:tokens:rate5m{spark="$spark"}', "made"),
                        ('sparkfleet:prompt_tokens:rate5m{spark="$spark"}', "of prompts"),
                    ),
                ),
                Panel(
                    "Requests",
                    COUNT,
                    "Waiting ones for long: it gets more than it can do.",
                    (
                        ('sparkfleet:requests:running{spark="$spark"}', "running"),
                        ('sparkfleet:queue:requests{spark="$spark"}', "waiting"),
                    ),
                ),
                Panel(
                    "Finished requests",
                    "reqps",
                    "It falls to 0 while requests run: see the tokens beside it.",
                    (('sparkfleet:requests:rate5m{spark="$spark"}', "finished"),),
                ),
                Panel(
                    "Time to first token",
                    SECONDS,
                    "p95 far above p50: some prompts are long, or wait. Both high: look at the queue.",
                    (
                        ('sparkfleet:ttft:p50_5m{spark="$spark"}', "p50"),
                        ('sparkfleet:ttft:p95_5m{spark="$spark"}', "p95"),
                    ),
                ),
                Panel(
                    "Time between tokens, p95",
                    SECONDS,
                    "It rises without more requests: look at the clocks and at the acceptance.",
                    (('sparkfleet:token_latency:p95_5m{spark="$spark"}', "p95"),),
                ),
                Panel(
                    "KV cache",
                    SHARE,
                    "In use: near 100% requests wait. Found in the prefix cache: it falls when conversations move between Sparks.",
                    (
                        ('sparkfleet:kv_cache:ratio{spark="$spark"}', "in use"),
                        ('sparkfleet:prefix_hits:ratio5m{spark="$spark"}', "found in the prefix cache"),
                    ),
                    most=1,
                ),
                Panel(
                    "Preemptions in 10 minutes",
                    COUNT,
                    "Requests that were put aside and computed again: send fewer at once, or lower max-num-seqs in the recipe.",
                    (('sparkfleet:preemptions:increase10m{spark="$spark"}', "preemptions"),),
                ),
            ),
        ),
        (
            "Host",
            (
                Panel(
                    "Memory available",
                    BYTES,
                    "Host and GPU share it. Below 4 GiB a Spark may freeze: end what else runs there.",
                    (('sparkfleet:memory:available_bytes{spark="$spark"}', "available"),),
                ),
                Panel(
                    "From swap",
                    "Bps",
                    "More than 1 MiB/s for long: memory is short. Lower gpu-memory-utilization in the recipe.",
                    (('sparkfleet:swap_in:rate5m{spark="$spark"}', "read"),),
                ),
                Panel(
                    "Disk free",
                    SHARE,
                    "Below 10%: run prune.yml, or free space there.",
                    (('sparkfleet:disk:free_ratio{spark="$spark"}', "{{mountpoint}}"),),
                    most=1,
                ),
                Panel(
                    "GPU at work",
                    SHARE,
                    "High without tokens, at little power: the engine is wedged.",
                    (('sparkfleet:gpu:utilisation_ratio{spark="$spark"}', "of the time"),),
                    most=1,
                ),
                Panel(
                    "GPU power",
                    "watt",
                    "It stays low under load: the GPU slows itself down, or the engine is wedged.",
                    (('sparkfleet:gpu:power_watts{spark="$spark"}', "power"),),
                ),
                Panel(
                    "GPU temperature",
                    CELSIUS,
                    "Above 85 °C: free its air inlets, and give it room.",
                    (('sparkfleet:gpu:temperature_celsius{spark="$spark"}', "temperature"),),
                ),
                Panel(
                    "GPU clock",
                    "hertz",
                    "It falls under load: see why in the panel beside it.",
                    (('sparkfleet:gpu:clock_hertz{spark="$spark"}', "multiprocessors"),),
                ),
                Panel(
                    "Why the GPU slows down",
                    COUNT,
                    "1: for this reason. Thermal ones: cool it. A power brake: use the power supply that came with it.",
                    (('max by (reason) (sparkfleet_gpu_throttled{spark="$spark"})', "{{reason}}"),),
                    most=1,
                ),
            ),
        ),
        (
            "Verdicts",
            (
                Panel(
                    "Findings of the watchdog",
                    COUNT,
                    "1: it finds this fault. verdict.json on the Spark says what was expected, what was seen, and what to do.",
                    (('max by (kind) (sparkfleet_watchdog_finding{spark="$spark"})', "{{kind}}"),),
                    most=1,
                ),
                Panel(
                    "Starts of the server",
                    COUNT,
                    "In one hour, and those by the watchdog. Several without a run: read docker logs sparkfleet-vllm there.",
                    (
                        ('sparkfleet:restarts:changes1h{spark="$spark"}', "starts"),
                        ('sparkfleet_watchdog_restarts{spark="$spark"}', "by the watchdog"),
                    ),
                ),
                Panel(
                    "Gate",
                    COUNT,
                    "1: the server passed when it was measured last. 0: the entry of its diagnosis in the troubleshooting page says what to do.",
                    (('sparkfleet_gate_passed{spark="$spark"}', "passed"),),
                    most=1,
                ),
                Panel(
                    "A run at work",
                    COUNT,
                    "1: a playbook has the Spark, and its alerts are silent. For hours: see who holds the lock (run.json).",
                    (('sparkfleet:run:held{spark="$spark"}', "held"),),
                    most=1,
                ),
            ),
        ),
    ),
    one_spark=True,
)

SPECULATION = Board(
    "sparkfleet-speculation",
    "Sparks: speculation",
    "Whether drafts pay on one Spark.",
    (
        (
            "Acceptance",
            (
                Panel(
                    "Accepted at position 0",
                    SHARE,
                    "Below the floor speculation costs more than it gives: run verify.yml. It passes there: the load has other texts than the "
                    "gate, so measure with tune.yml.",
                    (
                        ('sparkfleet:acceptance:ratio15m{spark="$spark"}', "of the load"),
                        ('sparkfleet:acceptance:floor{spark="$spark"}', "floor"),
                        ('sparkfleet_gate_acceptance_ratio{spark="$spark"}', "at the gate"),
                        (
                            'sparkfleet_watchdog_acceptance_ratio{spark="$spark"}',
                            "last window of the watchdog",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    "Accepted by position",
                    SHARE,
                    "A position that almost never counts: fewer speculative tokens may be faster, which tune.yml measures.",
                    (
                        (
                            'sparkfleet:acceptance:position_ratio15m{spark="$spark"}',
                            "position {{position}}",
                        ),
                    ),
                    most=1,
                ),
                Panel(
                    "Tokens a step",
                    COUNT,
                    "One token of the body and the accepted ones. Near 1: drafting only costs.",
                    (('sparkfleet:acceptance:length15m{spark="$spark"}', "tokens"),),
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "Drafts in 15 minutes",
                    COUNT,
                    "Below some hundreds the shares above are chance. None under load: the server runs without speculation; run drift.yml.",
                    (('sparkfleet:drafts:increase15m{spark="$spark"}', "drafts"),),
                ),
                Panel(
                    "Tokens a second",
                    RATE,
                    "All requests together. Compare it with the acceptance above under the same load.",
                    (('sparkfleet:tokens:rate5m{spark="$spark"}', "made"),),
                ),
                Panel(
                    "One stream at the gate",
                    RATE,
                    "What the gate measured last. It falls from run to run: compare image and driver with drift.yml.",
                    (('sparkfleet_gate_tokens_per_second{spark="$spark"}', "of one stream"),),
                ),
            ),
        ),
    ),
    one_spark=True,
)

BOARDS = {"fleet": FLEET, "spark": SPARK, "speculation": SPECULATION}
"""By the name of its file."""
