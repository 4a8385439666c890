"""The authority where clocks and encodings end: 1970, 2038, 2049 to 2050, and 2106."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.list_check import check_lists
from chargepki.pki.authority.offline import accept_answer, answer_request, request_ca
from chargepki.pki.authority.offline_lists import import_crl
from chargepki.pki.authority.renewal import due_at, find_due, renewal_order
from chargepki.pki.authority.rollover import cross_sign_cas
from chargepki.pki.backup import restore
from chargepki.pki.errors import ChargePkiError, ClockBehind
from chargepki.pki.inventory.records import CertificateState, IssuanceState
from chargepki.pki.validity import Window
from testkit.authorities import MemoryKeyStore, log_findings, make_authority, make_csr, ocpp_authority
from testkit.backups import World, settings_of

ENDS = {
    "2038": datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
    "2049": datetime(2049, 12, 31, 23, 59, 30, tzinfo=UTC),
    "2106": datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
}
SUBJECT = (("CN", "New"), ("O", "Test CSO"), ("C", "DE"))
STATION = "ocpp/charging-station"


def exchanged(authority: Authority, folder: Path, world: World, now: datetime) -> None:
    """Have a CA certified by an offline root, and take over its list."""
    with world.open(settings_of(folder / "offline")) as other:
        far = make_authority(other, clock=lambda: now)
        far.create_ca(CaOrder("far", "ocpp/cso-root", subject=SUBJECT))
        request = request_ca(authority, folder / "requests", CaOrder("n", "ocpp/cso-sub", subject=SUBJECT))
        answer = answer_request(far, request, "far")
        root = hashlib.sha256(answer.chain[-1].certificate).hexdigest()
        assert accept_answer(authority, folder / "requests", answer, root_sha256=root).not_after > now  # type: ignore[operator]  # active
        listed = far.publish_lists("far", validity=timedelta(days=180)).full
        assert listed is not None and import_crl(authority, listed.der).number == listed.number


@pytest.mark.parametrize(
    "end", [end if end == "2049" else pytest.param(end, marks=pytest.mark.campaign) for end in ENDS]
)
def test_renewals_holds_crosses_answers_and_restores_cross_the_end(end: str, tmp_path: Path) -> None:
    """Everything begins half a minute or less before the instant, and goes on after it."""
    world, keystore, clock = World(tmp_path), MemoryKeyStore(), [ENDS[end]]
    settings = settings_of(tmp_path / "home")
    with world.open(settings) as inventory:
        authority = ocpp_authority(inventory, keystore=keystore, clock=lambda: clock[0])
        order = IssueOrder("t-sub", STATION, csr=make_csr("CS-1"), validity=timedelta(days=90))
        old = authority.issue(order).record
        clock[0] += timedelta(minutes=1)
        authority.revoke(old.id, "certificateHold")
        held = authority.publish_crl("t-sub")
        assert held.entries == 1 and authority.release(old.id).state is CertificateState.ISSUED
        assert authority.publish_crl("t-sub").number > held.number
        clock[0] = due_at(old) + timedelta(seconds=1)
        assert [found.id for found, _ in find_due(inventory, clock[0])] == [old.id]
        ca = inventory.get_ca("t-sub")
        assert ca.not_before is not None and ca.not_after is not None
        window = Window(ca.not_before, ca.not_after)
        renewed = authority.issue(renewal_order(old, ca="t-sub", ca_window=window, now=clock[0]))
        assert renewed.record.not_after - renewed.record.not_before == old.not_after - old.not_before
        authority.create_ca(CaOrder("q", "ocpp/cso-root", subject=SUBJECT))
        assert cross_sign_cas(authority, "q", "t-root").state is CertificateState.ISSUED
        exchanged(authority, tmp_path, world, clock[0])
        number = authority.publish_crl("t-sub").number
    days = (clock[0] - datetime(2026, 3, 1, 12, tzinfo=UTC)).days + 1
    path = world.back_up(settings, days=days)
    clock[0] += timedelta(days=2)
    with path.open("rb") as stream:
        restore(stream, world.order(settings, replace=True, now=clock[0]))
    with world.open(settings) as inventory:
        authority = make_authority(inventory, keystore=keystore, clock=lambda: clock[0])
        assert number < authority.publish_crl("t-sub").number < 1 << 63
        assert check_lists(inventory, "t-sub@1") == ()
        assert log_findings(inventory, settings.home) == []


def test_a_clock_that_was_lost_makes_no_certificate_and_publishes_and_revokes_nothing(tmp_path: Path) -> None:
    """A machine without a battery wakes up in 1970."""
    world, keystore = World(tmp_path), MemoryKeyStore()
    with world.open(settings_of(tmp_path / "home")) as inventory:
        made = ocpp_authority(inventory, keystore=keystore)
        leaf = made.issue(IssueOrder("t-sub", STATION, csr=make_csr("CS-1"))).record
        lost = make_authority(inventory, keystore=keystore, clock=lambda: datetime(1970, 1, 1, tzinfo=UTC))
        for name in ("CS-1", "CS-2", "CS-3", "CS-4"):
            known = IssueOrder("t-sub", STATION, csr=make_csr(name))
            with pytest.raises(ClockBehind, match="clock says 1970"):
                lost.issue(known)
            assert made.issue(known).record.not_before > leaf.not_before - timedelta(days=1)
        queued = lost.queue(known := IssueOrder("t-sub", STATION, csr=make_csr("CS-5")))
        assert lost.serve_queue_once("w") == 1
        assert inventory.get_issuance(queued.id).state is IssuanceState.TAKEN
        assert made.serve_queue_once("w") == 1
        assert inventory.get_issuance(queued.id).state is IssuanceState.ISSUED
        before = [*inventory.list_cas(), *inventory.list_certificates(), *inventory.list_crls()]
        for act in (
            lambda: lost.issue(known),
            lambda: lost.issue(IssueOrder("t-sub", STATION, csr=make_csr("CS-6"))),
            lambda: lost.create_ca(CaOrder("n", "ocpp/cso-root", subject=SUBJECT)),
            lambda: cross_sign_cas(lost, "t-root", "t-sub"),
            lambda: lost.revoke(leaf.id, "superseded"),
            lambda: lost.publish_crl("t-sub"),
        ):
            with pytest.raises(ChargePkiError):
                act()
        assert [*inventory.list_cas(), *inventory.list_certificates(), *inventory.list_crls()] == before
        assert list(find_due(inventory, datetime(1970, 1, 1, tzinfo=UTC))) == []
