"""`apply` and `export`: all or nothing, each mistake with its line, and nothing to do the second time."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from controlplane import config
from controlplane.models import AlertRule, AuditEntry
from quotas.models import Account, ConfigVersion, Network, Override, Policy, Pool, PoolLimit, Project, Tier
from quotas.runtime.connection import accounts
from quotas.services import account_actions
from quotas.snapshot import resolve
from tests.integration.controlplane.config.make import default_queues, job_of

pytestmark = pytest.mark.django_db
FULL = (Path(__file__).parent / "full.yaml").read_text()


@pytest.fixture(autouse=True)
def keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve.clear()
    monkeypatch.setenv("SIM_KEY_1", "first-credential")
    monkeypatch.setenv("SIM_KEY_2", "second-credential")


def apply(text: str, **options: Any) -> list[str]:
    return [f"{change.verb} {change.word} {change.key}" for change in config.apply(text, actor="test", **options)]


def doc(**sections: Any) -> str:
    return yaml.safe_dump({"version": 1, **sections})


def test_everything_is_stored_once_and_audited() -> None:
    changes = apply(FULL)
    assert len(changes) == 16
    assert AuditEntry.objects.filter(verb__endswith=".create", actor="test").count() == 16
    before = ConfigVersion.current()
    assert apply(FULL) == []
    assert ConfigVersion.current() == before
    daily = Policy.objects.get(name="acme-tokens-day")
    assert (daily.project.slug, daily.limit, daily.period, daily.timezone) == (
        "acme",
        2_000_000,
        "day",
        "Europe/Berlin",
    )  # type: ignore[union-attr]
    llm = Pool.objects.get(name="llm")
    assert (llm.concurrency_initial, llm.cooldown_max, llm.fallback) == (4, 3600.0, ["llm-backup"])
    assert {account.name: account.credential.reveal() for account in llm.accounts.all()} == {  # type: ignore[attr-defined]
        "a1": "first-credential",
        "a2": "second-credential",
    }


def test_export_round_trip_is_an_empty_diff() -> None:
    default_queues()
    apply(FULL)
    exported = config.export()
    assert "credential\n" not in exported and "first-credential" not in exported
    assert apply(exported, prune=True) == []
    for model in (Override, Policy, Network, Tier):
        model.objects.all().delete()
    assert apply(exported) != []
    assert config.export() == exported


def test_dry_run_reports_the_same_and_changes_nothing() -> None:
    planned = apply(FULL, dry_run=True)
    assert not Policy.objects.exists() and not AuditEntry.objects.exists()
    assert apply(FULL) == planned


def test_prune_removes_what_given_sections_leave_out() -> None:
    apply(FULL)
    assert apply(doc(networks=[])) == []
    assert apply(doc(networks=[]), prune=True) == ["remove network office"]
    assert Policy.objects.count() == 4, "a section that is not in the file stays"
    left = apply(
        doc(policies=[{"name": "only", "scope": "global", "algorithm": "calendar", "period": "day", "limit": 1}]),
        prune=True,
    )
    assert left[0] == "create policy only" and len(left) == 5
    assert not Override.objects.exists(), "an override goes with its policy"
    assert AuditEntry.objects.get(verb="network.remove").before["action"] == "allow"


def test_what_is_still_named_is_not_pruned() -> None:
    apply(FULL)
    with pytest.raises(config.ConfigInvalid, match="tier 'gold' can't be removed: project 'acme' names it"):
        apply(doc(tiers=[]), prune=True)
    job_of(Project.objects.get(slug="acme"))
    with pytest.raises(config.ConfigInvalid, match="project 'acme' can't be removed: in use by 1 unfinished job"):
        apply(doc(projects=[], policies=[], overrides=[], recurring=[]), prune=True)
    assert Policy.objects.count() == 4, "and nothing else is"


def change(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "generation"),
    [
        ("algorithm: sliding_window, limit: 1000", "algorithm: sliding_window, limit: 5", 0),
        ("algorithm: sliding_window, limit: 1000", "algorithm: fixed_window, limit: 1000", 1),
        ("limit: 1000, window: 1h", "limit: 1000, window: 2h", 1),
    ],
)
def test_counters_start_anew_only_where_they_mean_nothing_any_more(old: str, new: str, generation: int) -> None:
    apply(FULL)
    assert apply(change(FULL, old, new)) == ["change policy user-hourly"]
    assert Policy.objects.get(name="user-hourly").generation == generation


def test_an_account_that_an_operator_took_out_comes_back_where_the_file_says_so(
    valkey: Any, django_capture_on_commit_callbacks: Any
) -> None:
    apply(FULL)
    account = Account.objects.select_related("pool").get(name="a1", pool__name="llm")

    def acquired() -> set[str]:
        resolve.clear()
        return {state.name for state in accounts().states(resolve.pool_spec("llm")) if state.state == "available"}

    account_actions.disable(account, actor="test", reason="maintenance")
    assert acquired() == {"a2"}
    with django_capture_on_commit_callbacks(execute=True):
        assert apply(FULL) == [], "the file leaves it to the operator"
    assert acquired() == {"a2"}
    with django_capture_on_commit_callbacks(execute=True):
        apply(change(FULL, "{name: a1, ", "{name: a1, enabled: true, "))
    assert acquired() == {"a1", "a2"}
    account.refresh_from_db()
    assert (account.enabled, account.disabled_reason, account.state) == (True, "", "available")


@pytest.mark.parametrize(("given", "stored"), [("[acme]", ["acme"]), ("[]", []), ("null", None)])
def test_whose_a_pool_is_goes_in_and_comes_out(given: str, stored: list[str] | None) -> None:
    text = change(FULL, "[llm-backup]", f"[llm-backup]\n    projects: {given}")
    apply(text)
    assert Pool.objects.get(name="llm").projects == stored
    assert apply(text) == []
    shown = {pool["name"]: pool for pool in yaml.safe_load(config.export())["pools"]}
    assert shown["llm"].get("projects") == stored
    assert apply(FULL) == ([] if stored is None else ["change pool llm"]), "left out: everybody"


def test_credentials_stay_where_the_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(FULL)
    monkeypatch.delenv("SIM_KEY_1")
    assert apply(FULL) == []
    monkeypatch.setenv("SIM_KEY_2", "another")
    (changed,) = config.apply(FULL, actor="test")
    assert "another" not in str(changed) and "a2" in str(changed)
    assert Account.objects.get(name="a2").credential.reveal() == "another"  # type: ignore[attr-defined]
    assert Account.objects.get(name="a1").credential.reveal() == "first-credential"  # type: ignore[attr-defined]
    assert "another" not in str(list(AuditEntry.objects.values_list()))


@pytest.mark.django_db(transaction=True)
def test_another_credential_brings_a_refused_account_back(valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(FULL)
    row = Account.objects.get(name="a1")
    engine = accounts()
    engine.disable(str(row.pk), "auth")
    assert [state.state for state in engine.states(resolve.pool_spec("llm"))] == ["disabled", "available"]
    apply(FULL)
    assert engine.states(resolve.pool_spec("llm"))[0].state == "disabled", "it is the same one"
    monkeypatch.setenv("SIM_KEY_1", "renewed")
    apply(FULL)
    assert engine.states(resolve.pool_spec("llm"))[0].state == "available"


def test_an_alerts_address_is_never_shown_and_stays_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    created = config.apply(FULL, actor="test")
    rule = AlertRule.objects.get(name="ops")
    assert rule.to.reveal().startswith("webhook+https://user:hush-word@")  # type: ignore[attr-defined]
    assert apply(doc(alerts=[{"name": "ops", "when": ["breaker_opened"]}])) == ["change alert rule ops"]
    again = AlertRule.objects.get(name="ops")
    assert (again.when, again.to.reveal()) == (["breaker_opened"], rule.to.reveal())  # type: ignore[attr-defined]
    given = doc(alerts=[{"name": "ops", "when": ["breaker_opened"], "to_env": "OPS_ADDRESS"}])
    assert apply(given) == ["change alert rule ops"], "the variable is not set: only its name is new"
    monkeypatch.setenv("OPS_ADDRESS", "webhook+https://hush-host/")
    changed = config.apply(given, actor="test")
    assert AlertRule.objects.get().to.reveal() == "webhook+https://hush-host/"  # type: ignore[attr-defined]
    assert apply(given) == []
    stored = str(list(AlertRule.objects.values_list("to"))) + str(list(AuditEntry.objects.values_list()))
    assert "hush" not in str([*map(str, created), *map(str, changed)]) + config.export() + stored
    assert "to_env: OPS_ADDRESS" in config.export()
    with pytest.raises(config.ConfigInvalid) as invalid:
        apply(doc(alerts=[{"name": "new", "when": ["breaker_opened"], "to": "https://hush-mistake/"}]))
    assert "hush" not in str(invalid.value)


def test_new_account_needs_its_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIM_KEY_2")
    with pytest.raises(config.ConfigInvalid, match="'a2' needs a credential: SIM_KEY_2 is not set"):
        apply(FULL)
    assert not Tier.objects.exists()


def test_operators_switch_stays_unless_the_file_says_so() -> None:
    apply(FULL)
    Account.objects.filter(name="a1").update(enabled=False)
    assert apply(FULL) == []
    assert "enabled: false" in config.export()
    assert apply(config.export(), prune=True) == []
    assert apply(change(FULL, "weight: 1}", "weight: 1, enabled: true}")) == ["change pool llm"]
    assert Account.objects.get(name="a1").enabled


def test_rows_of_pool_limits_are_kept_where_only_the_limit_changes() -> None:
    apply(FULL)
    before = set(PoolLimit.objects.values_list("pk", flat=True))
    assert apply(change(FULL, "limit: 500, window: 60s", "limit: 400, window: 60s")) == ["change pool llm"]
    assert set(PoolLimit.objects.values_list("pk", flat=True)) == before


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("version: 1\n", "version: 2\n", 1, "version 1, not 2"),
        ("version: 1\n", "\n", 2, "needs `version: 1`"),
        ("projects:", "porjects:", 2, "no such section"),
        ("weight: 3", "weight: -3", 2, "from 1 to 1000"),
        ("weight: 3", "wieght: 3", 2, "not known"),
        ("tier: gold}]\n", "tier: gold}]\nprojects: []\n", 3, "twice"),
        ("slug: acme", "slug: a b", 2, "1 to 63"),
        ("{slug: acme, weight: 3, tier: gold}", "{slug: acme}, {slug: acme}", 2, "'acme' stands there twice"),
        ("tier: gold}]", "tier: silver}]", 2, "no tier 'silver'"),
        ("users: [u-1, u-2]", "users: [1]", 3, "put it in quotes"),
        ("policy: user-hourly", "policy: nobody", 4, "no policy 'nobody'"),
        ('until: "2026-12-31T00:00:00Z"', "until: tomorrow", 4, "must be a time"),
        ('until: "2026-12-31T00:00:00Z"', "until: 2026-12-31", 4, "time zone"),
        ("192.0.2.0/24", "192.0.2.1/24", 5, "host bits"),
        ("192.0.2.0/24", "everywhere", 5, "is no network"),
        ("limit: 1000, window: 1h", "limit: -1, window: 1h", 7, "from 0 to"),
        ("limit: 1000, window: 1h", "limit: 1.5, window: 1h", 7, "whole number"),
        ("limit: 1000, window: 1h", "limit: .nan, window: 1h", 7, "whole number"),
        ("limit: 1000, window: 1h", "limit: 9007199254740992, window: 1h", 7, "from 0 to"),
        ("limit: 1000, window: 1h", "limit: 010, window: 1h", 7, "whole number"),
        ("limit: 1000, window: 1h", "limit: yes, window: 1h", 7, "whole number"),
        ("limit: 1000, window: 1h", "window: 1h", 7, "needs 'limit'"),
        ("limit: 1000, window: 1h", "limit: , window: 1h, colour: red", 7, "not known"),
        ("limit: 1000, window: 1h", "limit: 1000, window: 0s", 7, "from 1ms"),
        ("limit: 1000, window: 1h", "limit: 1000, window: 1 hour", 7, "duration"),
        ("limit: 1000, window: 1h", "limit: 1000", 7, "needs a window"),
        ("limit: 1000, window: 1h", "limit: 1000, window: 1h, period: day", 7, "has no period"),
        ("limit: 1000, window: 1h", "limit: 1000, window: 1h, burst: 5", 7, "has no burst"),
        ("limit: 1000, window: 1h", "limit: 1000, window: 1h, match: /x", 7, "has no match"),
        ("scope: user, unit", "scope: moon, unit", 7, "must be one of"),
        ("scope: user, unit", "scope: custom, unit", 7, "needs a key_name"),
        ("period: day, timezone", "timezone", 8, "needs a period"),
        ("period: day", "period: year", 8, "must be one of"),
        ("Europe/Berlin", "Mars/Olympus", 8, "no time zone"),
        ("pause_at: 0.8}", "pause_at: 80}", 8, "share"),
        ("warn_at: [0.6, 0.8", "warn_at: [0.6, 0.6", 8, "twice"),
        ("project: acme, unit", "project: nobody, unit", 8, "no project 'nobody'"),
        ("burst: 40", "burst: 0", 9, "from 1 to"),
        ('match: "POST /v1/*", unit', 'match: "SEND v1", unit', 9, "no endpoint pattern"),
        ("cost: {requests: 5}", "cost: {requests: -5}", 11, "from 0 to"),
        ("cost: {requests: 5}", "cost: {}", 11, "units"),
        ("http://127.0.0.1:9100", "http://user:word@127.0.0.1:9100", 12, "credential"),
        ("http://127.0.0.1:9100", "ftp://127.0.0.1", 12, "address"),
        ("Bearer {credential}", "Bearer secret", 12, "must contain {credential}"),
        ("    provider: sim\n", "    provider: nobody\n", 15, "no provider 'nobody'"),
        ("strategy: health  ", "strategy: luck  ", 16, "must be one of"),
        ("floor: 1, ceiling: 16", "floor: 5, ceiling: 16", 18, "floor ≤ initial"),
        ("default: 60s, max: 1h", "default: 2h, max: 1h", 20, "above the maximum"),
        ("[llm-backup]", "[llm]", 22, "no fallback of its own"),
        ("[llm-backup]", "[nobody]", 22, "no pool 'nobody'"),
        ("[llm-backup]", "[llm-backup]\n    projects: [nobody]", 23, "no project 'nobody'"),
        ("[llm-backup]", "[llm-backup]\n    projects: acme", 23, "must be a list"),
        ("credential_env: SIM_KEY_1, weight", "credential: sk-1, weight", 23, "not known"),
        ("credential_env: SIM_KEY_1, weight", "credential_env: sk-live-1, weight", 23, "environment variable"),
        ("name: a2", "name: a1", 23, "twice"),
        ("jitter: 0.1", "jitter: 2", 25, "share"),
        ("auth: never", "auth: always", 25, "mapping"),
        ("auth: never", "aura: never", 25, "not known here"),
        ("initial: 1s, max: 60s", "initial: 2m, max: 60s", 25, "above the maximum"),
        ("retry_policy: standard, pool", "retry_policy: nobody, pool", 26, "no retry policy 'nobody'"),
        ("lane: io}", "lane: gpu}", 26, "must be one of"),
        ("timeout: 600s", "timeout: -5", 26, "duration"),
        ("concurrency: 50", "concurrency: fifty", 26, "whole number"),
        ("name: ops, when", "name: ops, to_env: OPS, when", 28, "one of them is enough"),
        ("[breaker_opened, all", "[breaker_broke, all", 28, "must be one of"),
        ("[breaker_opened, all_accounts_limited, dead_letter_critical]", "[]", 28, "kind of alert"),
        ("webhook+https://user", "https://user", 28, "begins with webhook+https://"),
        ("webhook+https://user:hush-word@hooks.example.com/ops/hush-path", "webhook+https://", 28, "with a host"),
        (', to: "webhook+https://user:hush-word@hooks.example.com/ops/hush-path"', "", 28, "needs an address"),
        ("0 3 * * *", "every night", 27, "cron expression"),
        ("0 3 * * *", "0 3 * * * *", 27, "cron expression"),
        ("0 3 * * *", "0 0 31 2 *", 27, "names some time"),
        ("project: acme, payload", "project: nobody, payload", 27, "no project 'nobody'"),
        ("# lane: io | cpu\n", "\nqueues2: {]\n", 27, "not YAML"),
        ("# lane: io | cpu\n", "\nx: &a [*a]\n", 27, ""),
    ],
)  # fmt: skip
def test_mistakes_name_their_line_and_change_nothing(old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(config.ConfigInvalid) as invalid:
        apply(FULL.replace(old, new, 1))
    mistakes = [(mistake.line, str(mistake)) for mistake in invalid.value.mistakes]
    assert any(found == line and message in text for found, text in mistakes), mistakes
    assert not Policy.objects.exists() and not Tier.objects.exists() and not AuditEntry.objects.exists()


def test_all_mistakes_are_reported_at_once() -> None:
    text = FULL.replace("weight: 3", "weight: 0").replace("limit: 20,", "limit: many,").replace("lane: io}", "lane: x}")
    with pytest.raises(config.ConfigInvalid) as invalid:
        apply(text)
    assert [mistake.line for mistake in invalid.value.mistakes] == [2, 9, 26]


def test_aliases_do_not_grow_without_end() -> None:
    bomb = "version: 1\n" + "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(config.ConfigInvalid, match="too large"):
        apply(bomb)


def test_credential_is_one_line_of_printable_ascii_and_no_message_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(FULL)
    for odd in ("hush-hush\nsecond line", "hush-hush\tx", "hush-hush-\u65e5"):
        monkeypatch.setenv("SIM_KEY_2", odd)
        with pytest.raises(config.ConfigInvalid, match="'a2' in SIM_KEY_2 must be printable ASCII") as invalid:
            apply(FULL)
        assert "hush" not in str(invalid.value)
    monkeypatch.setenv("SIM_KEY_2", "another-credential \n")
    apply(FULL)
    assert Account.objects.get(name="a2").credential.reveal() == "another-credential"


def run(*args: str, stdin: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    out = io.StringIO()
    if monkeypatch is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    call_command(*args, stdout=out)
    return out.getvalue()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sluice.yaml"
    file.write_text(FULL)
    dry = run("apply", str(file), "--dry-run")
    assert "+ policy user-hourly" in dry and dry.rstrip().endswith("(dry run: nothing was changed)")
    assert "16 added, 0 changed, 0 removed" in run("apply", str(file))
    assert run("apply", "-", stdin=run("export"), monkeypatch=monkeypatch) == "no changes\n"
    file.write_text(change(FULL, "limit: 1000,", "limit: 0,"))
    assert "    limit: 1000 → 0\n" in run("apply", str(file))
    file.write_text(change(FULL, "limit: 1000,", "limit: ,"))
    assert "    limit: 0 → null\n" in run("apply", str(file)), "0 and unlimited are two things"
    file.write_text(change(FULL, "weight: 3", "weight: x"))
    with pytest.raises(CommandError, match=r"sluice\.yaml: line 2, projects\[0\]\.weight: must be a whole number"):
        run("apply", str(file))
    with pytest.raises(CommandError, match="No such file"):
        run("apply", str(tmp_path / "nothing.yaml"))
    file.write_bytes(b"version: 1\nprojects: [\xff]\n")
    with pytest.raises(CommandError, match="line 2: not UTF-8"):
        run("apply", str(file))
