"""Tests of chargepki.ocpp_security.alerting: at least once, each cause once, and no target can do harm."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from chargepki.ocpp_security.alerting import AlertEngine, apply_rules
from chargepki.ocpp_security.alerts import AlertPlan, AlertRule, ExecTarget, LogTarget, WebhookTarget, trial_alert
from chargepki.ocpp_security.event_store import Occurrence, record_event
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.inventory import AuditKey, Inventory, Transaction, verify_log
from chargepki.pki.inventory.event_records import DeliveryState
from testkit.csms_rig import run_on, wait_for
from testkit.inventories import ACTOR

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = AlertPlan((AlertRule("tampering", ("log",), cool_down=timedelta(seconds=1)),), {"log": LogTarget("log")})


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[Inventory]:
    key = AuditKey.generate()
    with Inventory.open(f"sqlite:///{tmp_path / 'i.db'}", log_key=key) as opened:
        apply_rules(opened, PLAN, ACTOR, NOW)
        yield opened
        assert verify_log(opened, checkpoint=None, pinned_keys=[key.public]).findings == ()


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def happen(inventory: Inventory, text: str = "door", *, seconds: float = 0) -> None:
    at = NOW + timedelta(seconds=seconds)
    occurrence = Occurrence(None, "csms", "TamperDetectionActivated", True, text, at, at)
    inventory.write(lambda tx: record_event(tx, occurrence, ACTOR, "security-event.raise"))


def engine(inventory: Inventory, plan: AlertPlan, clock: Clock | None = None) -> AlertEngine:
    environ = {**os.environ, "CHARGEPKI_PASSPHRASE_FILE": "/secret", "HOOK_SECRET": "k3y"}
    return AlertEngine(inventory, plan, actor=ACTOR, environ=environ, clock=clock or Clock())


def test_each_cause_makes_one_alert_however_often_and_wherever_the_rules_are_applied(inventory: Inventory) -> None:
    happen(inventory)
    assert apply_rules(inventory, PLAN, ACTOR, NOW) == 1
    assert apply_rules(inventory, PLAN, ACTOR, NOW) == 0
    happen(inventory, seconds=0.5)
    assert apply_rules(inventory, PLAN, ACTOR, NOW) == 0  # it cools down
    happen(inventory, seconds=2)
    assert apply_rules(inventory, PLAN, ACTOR, NOW + timedelta(seconds=2)) == 1
    assert len(inventory.list_alerts()) == 2
    assert [entry.action for entry in inventory.list_audit()].count("alert.raise") == 2


def test_what_happened_before_there_were_rules_makes_no_alert(tmp_path: Path) -> None:
    with Inventory.open(f"sqlite:///{tmp_path / 'new.db'}", log_key=AuditKey.generate()) as fresh:
        happen(fresh)
        assert apply_rules(fresh, PLAN, ACTOR, NOW) == 0
        assert apply_rules(fresh, PLAN, ACTOR, NOW) == 0


def test_a_flood_makes_alerts_in_bounds(inventory: Inventory) -> None:
    plan = replace(PLAN, rules=(replace(PLAN.rules[0], cool_down=timedelta(minutes=15)),))

    def flood(tx: Transaction) -> None:
        for number in range(700):
            at = NOW + timedelta(seconds=number / 100)
            occurrence = Occurrence(None, "csms", "TamperDetectionActivated", True, f"door {number}", at, at)
            record_event(tx, occurrence, ACTOR, "security-event.raise")

    inventory.write(flood)
    assert apply_rules(inventory, plan, ACTOR, NOW) == 1


def test_a_log_target_writes_a_line(inventory: Inventory, caplog: pytest.LogCaptureFixture) -> None:
    happen(inventory)
    apply_rules(inventory, PLAN, ACTOR, NOW)
    with caplog.at_level(logging.INFO, "chargepki.alerts"):
        assert run_on("asyncio", engine(inventory, PLAN).deliver_due()) == 1
        assert run_on("asyncio", engine(inventory, PLAN).deliver_due()) == 0
    assert "TamperDetectionActivated" in caplog.text
    (alert,) = inventory.list_alerts()
    (delivery,) = inventory.list_alert_deliveries(alert.id)
    assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 1)


@contextlib.asynccontextmanager
async def receiver(answers: list[int], taken: list[tuple[dict[str, str], bytes]]) -> AsyncIterator[str]:
    async def hook(request: web.Request) -> web.Response:
        taken.append((dict(request.headers), await request.read()))
        status = answers.pop(0) if answers else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    app = web.Application()
    app.router.add_post("/hook", hook)
    app.router.add_route("*", "/elsewhere", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


def webhook_plan(url: str) -> AlertPlan:
    rule = replace(PLAN.rules[0], targets=("hook",))
    return AlertPlan(
        (rule,), {"hook": WebhookTarget("hook", url, secret_env="HOOK_SECRET", timeout=timedelta(seconds=2))}
    )


def test_a_webhook_is_signed_and_tried_until_it_takes_the_alert_and_never_redirected(inventory: Inventory) -> None:
    taken: list[tuple[dict[str, str], bytes]] = []
    clock = Clock()

    async def story() -> None:
        async with receiver([500, 302], taken) as url:
            plan = webhook_plan(url)
            happen(inventory)
            apply_rules(inventory, plan, ACTOR, NOW)
            at_work = engine(inventory, plan, clock)
            waits = []
            for _ in range(3):
                await at_work.deliver_due()
                assert await at_work.deliver_due() == 0  # not before its time
                (delivery,) = inventory.list_alert_deliveries(inventory.list_alerts()[0].id)
                waits.append((delivery.next_at - clock.now).total_seconds())
                clock.now = delivery.next_at
            assert waits[:2] == [5, 10]
            assert delivery.state is DeliveryState.DELIVERED

    run_on("asyncio", story())
    assert len(taken) == 3  # the redirection was not followed
    assert len({body for _, body in taken}) == 1
    headers, body = taken[-1]
    stamp, _, digest = headers["Chargepki-Signature"].removeprefix("t=").partition(",v1=")
    assert hmac.new(b"k3y", stamp.encode() + b"." + body, hashlib.sha256).hexdigest() == digest
    assert json.loads(body)["rule"] == "tampering"


def test_an_alert_survives_the_death_of_the_process_that_delivers_it(inventory: Inventory) -> None:
    taken: list[tuple[dict[str, str], bytes]] = []
    clock = Clock()

    async def story() -> None:
        async with receiver([], taken) as url:
            plan = webhook_plan(url)
            happen(inventory)
            apply_rules(inventory, plan, ACTOR, NOW)
            (due,) = inventory.list_due_deliveries(NOW)
            # As far as a process gets that is killed in the middle of its attempt.
            assert inventory.write(lambda tx: tx.take_alert_delivery(due, now=NOW, lease=timedelta(seconds=32)))
            assert inventory.write(lambda tx: tx.take_alert_delivery(due, now=NOW, lease=timedelta(1))) is None
            other = engine(inventory, plan, clock)
            assert await other.deliver_due() == 0
            clock.now = NOW + timedelta(seconds=33)
            assert await other.deliver_due() == 1

    run_on("asyncio", story())
    assert len(taken) == 1


def program(tmp_path: Path, source: str) -> tuple[str, ...]:
    path = tmp_path / "program.py"
    path.write_text(source)
    return (sys.executable, str(path), "$HOME; echo injected")


def test_a_program_gets_json_on_stdin_its_arguments_as_they_are_and_none_of_our_variables(
    inventory: Inventory, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    source = (
        "import json, os, sys\n"
        f"json.dump([json.load(sys.stdin), sys.argv[1:], sorted(os.environ)], open({str(out)!r}, 'w'))\n"
    )
    target = ExecTarget("run", program(tmp_path, source))
    run_on("asyncio", engine(inventory, PLAN).tell(target, trial_alert(NOW)))
    document, arguments, variables = json.loads(out.read_text())
    assert document["schema"] == "chargepki/alert"
    assert arguments == ["$HOME; echo injected"]
    assert not [name for name in variables if name.startswith("CHARGEPKI_")]


@pytest.mark.parametrize(
    ("source", "seconds", "words"),
    [
        ("import sys; sys.exit(3)", 60, "status 3"),
        ("import os, time\nif os.fork() == 0: time.sleep(600)\ntime.sleep(600)", 1, "did not end"),
    ],
)
def test_a_program_that_fails_or_hangs_is_an_error_and_leaves_nothing_running(
    inventory: Inventory, tmp_path: Path, source: str, seconds: int, words: str
) -> None:
    target = ExecTarget("run", program(tmp_path, source), timeout=timedelta(seconds=seconds))
    with pytest.raises(ChargePkiError, match=words):
        run_on("asyncio", engine(inventory, PLAN).tell(target, trial_alert(NOW)))
    # They have been killed, which takes its time.
    run_on("asyncio", wait_for(lambda: str(tmp_path / "program.py") not in _command_lines()))


def _command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(found)


def test_targets_that_cannot_be_reached_or_lack_their_secret_are_errors_without_the_address(
    inventory: Inventory, tmp_path: Path
) -> None:
    at_work = engine(inventory, PLAN)
    for target in (
        WebhookTarget("w", "http://127.0.0.1:9/token-in-address", secret_env="HOOK_SECRET"),
        WebhookTarget("w", "http://127.0.0.1:9/token-in-address", secret_env="UNSET_SECRET"),
        WebhookTarget("w", "http://127.0.0.1:9/token-in-address", secret_file=str(tmp_path / "none")),
        ExecTarget("x", (str(tmp_path / "no-such-program"),)),
    ):
        with pytest.raises(ChargePkiError) as caught:
            run_on("asyncio", at_work.tell(target, trial_alert(NOW)))
        assert "token-in-address" not in str(caught.value)


def test_a_delivery_whose_target_is_gone_is_given_up(inventory: Inventory) -> None:
    happen(inventory)
    apply_rules(inventory, PLAN, ACTOR, NOW)
    run_on("asyncio", engine(inventory, AlertPlan()).deliver_due())
    (delivery,) = inventory.list_alert_deliveries(inventory.list_alerts()[0].id)
    assert delivery.state is DeliveryState.FAILED


def test_the_engine_works_by_itself_while_it_runs(inventory: Inventory) -> None:
    async def story() -> None:
        async with AlertEngine(inventory, PLAN, actor=ACTOR, environ={}):
            happen(inventory, seconds=(datetime.now(UTC) - NOW).total_seconds())
            await wait_for(lambda: inventory.list_alerts())
            alert = inventory.list_alerts()[0].id
            await wait_for(lambda: inventory.list_alert_deliveries(alert)[0].state is DeliveryState.DELIVERED)

    run_on("uvloop", story())


def test_no_more_than_four_deliveries_are_under_way_at_once(inventory: Inventory) -> None:
    rules = tuple(replace(PLAN.rules[0], name=f"r{number}", targets=("hook",)) for number in range(12))
    under_way, most = 0, 0

    async def hook(_request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return web.Response(status=204)

    async def story() -> int:
        app = web.Application()
        app.router.add_post("/hook", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        plan = replace(webhook_plan(f"http://127.0.0.1:{runner.addresses[0][1]}/hook"), rules=rules)
        happen(inventory)
        apply_rules(inventory, plan, ACTOR, NOW)
        try:
            return await engine(inventory, plan).deliver_due()
        finally:
            await runner.cleanup()

    assert run_on("asyncio", story()) == 12
    assert most <= 4
