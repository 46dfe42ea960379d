"""Instances that several files of tests start: the tests' own tasks, and what is configured for them."""

from __future__ import annotations

from tests.support.shapes import Plan

TASKS = {"SLUICE_TASK_MODULES": "tests.acceptance.tasks"}

SHARED = Plan(
    options=("--workers", "1"),
    environ={
        "SLUICE_TASK_MODULES": "tests.acceptance.tasks,tests.acceptance.django_tasks_here",
        "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
        "SLUICE_CALLBACK_NETWORKS": "127.0.0.0/8",  # where the tests receive; with SQLite it is the default
        "K1": "key-1",
    },
)
SHARED_CONFIGURATION = """
version: 1
projects: [{{slug: acme}}, {{slug: heavy, weight: 3}}, {{slug: light, weight: 1}}, {{slug: limited}}, {{slug: narrow}}, {{slug: thrifty}}]
policies:
  - {{name: inflight, scope: project, project: narrow, unit: requests, algorithm: concurrency, limit: 1, lease_ttl: 60s}}
  - {{name: twice, scope: project, project: limited, unit: requests, algorithm: sliding_window, limit: 2, window: 4s}}
  - {{name: thrift, scope: project, project: thrifty, unit: requests, algorithm: fixed_window, limit: 10, window: 1h, pause_at: 0.5, pause: low}}
providers: [{{name: sim, dialect: openai, base_url: "{provider}", auth_header: "Authorization: Bearer {{credential}}", timeout: 10s}}]
pools: [{{name: llm, provider: sim, accounts: [{{name: a1, credential_env: K1}}]}}]
retry_policies:
  - {{name: brisk, strategy: fixed, initial: 100ms, max: 100ms, max_attempts: 3, jitter: 0}}
  - {{name: clever, strategy: smart, max_attempts: 3}}
  - {{name: forgiving, strategy: fixed, initial: 100ms, max: 100ms, max_attempts: 1, jitter: 0, auto_replays: 1, auto_replay_after: 1s}}
queues:
  - {{name: brisk, retry_policy: brisk, timeout: 30s}}
  - {{name: clever, retry_policy: clever}}
  - {{name: forgiving, retry_policy: forgiving}}
  - {{name: small, max_size: 5}}
  - {{name: parked, max_size: 100000}}
  - {{name: drained}}
  - {{name: single, concurrency: 1}}
  - {{name: pair, concurrency: 2}}
recurring: [{{name: each-minute, cron: "* * * * *", type: t.mark, project: acme, payload: {{name: ticks}}}}]
"""
"""`{provider}` is the address of a simulated one."""

FAULTS = Plan(
    options=("--workers", "0"),
    environ={**TASKS, "SLUICE_MAX_MEMORY": "300"},
    configuration="""
version: 1
projects: [{slug: acme}, {slug: narrow}]
policies:
  - {name: inflight, scope: project, project: acme, unit: requests, algorithm: concurrency, limit: 150, lease_ttl: 60s}
  - {name: inflight-narrow, scope: project, project: narrow, unit: requests, algorithm: concurrency, limit: 8, lease_ttl: 60s}
  - {name: slow, scope: user, unit: requests, algorithm: token_bucket, limit: 5, window: 10s, burst: 1}
retry_policies: [{name: steady, strategy: fixed, initial: 2s, max: 2s, max_attempts: 1000, jitter: 0}]
queues: [{name: patient, retry_policy: steady}, {name: parked}, {name: forked, lane: cpu}, {name: threaded, lane: io}]
""",
)
"""For tests that kill and disconnect things. It has no I/O worker, unless options say otherwise: `WorkerFleet` starts
those. Forked jobs and workers may take 300 MiB."""
