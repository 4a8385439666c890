"""Tests of lists, CA certificates, health and the self-probe over real sockets."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.crl import parse_crl
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.services.keeper import Keeper
from chargepki.pki.services.probe import Probe
from testkit.authorities import ACTOR, make_csr
from testkit.pki_server import live_server, live_signers

on_both = pytest.mark.parametrize("inventory", ["sqlite", "postgresql"], indirect=True)


@on_both
def test_lists_and_certificates_are_served_as_clients_expect(inventory: Inventory, authority: Authority) -> None:
    with live_server(inventory) as server:
        crl = server.ask("GET", "/crl/t-sub%401.crl")
        assert (crl.status, crl.headers["content-type"]) == (200, "application/pkix-crl")
        first = parse_crl(crl.body).number
        unchanged = server.ask("GET", "/crl/t-sub@1.crl", headers={"If-None-Match": crl.headers["etag"]})
        assert unchanged.status == 304
        authority.publish_crl("t-sub")
        second = parse_crl(server.ask("GET", "/crl/t-sub@1.crl").body).number
        assert first is not None and second is not None and second > first
        certificate = server.ask("GET", "/ca/t-root@1.cer")
        assert certificate.body == inventory.get_ca("t-root").certificate_der
        for path in (
            "/crl/t-sub.crl",
            "/crl/nobody@1.crl",
            "/crl/../ca/t-sub@1.cer",
            "/ca/t-sub@1.crl",
            "/ca/%00@1.cer",
        ):
            assert server.ask("GET", path).status == 404, path
        assert server.ask("POST", "/crl/t-sub@1.crl", b"x").status == 405


def test_an_expired_list_is_not_served(
    inventory: Inventory, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_server(inventory) as server:
        assert server.ask("GET", "/crl/t-sub@1.crl").status == 200
        real, later = time.time, timedelta(days=7, seconds=1)
        monkeypatch.setattr("chargepki.pki.services.artefacts.time.time", lambda: real() + later.total_seconds())
        for _ in range(2):
            answer = server.ask("GET", "/crl/t-sub@1.crl")
            assert answer.status == 503 and int(answer.headers["retry-after"]) > 0


def test_a_path_of_the_public_url_may_stand_in_front(inventory: Inventory, authority: Authority) -> None:
    with live_server(inventory) as server:
        server.site._prefix = b"/pki"
        assert server.ask("GET", "/pki/crl/t-sub@1.crl").status == 200
        assert server.ask("GET", "/crl/t-sub@1.crl").status == 200


def test_the_probe_finds_what_is_missing_wrong_or_old(
    inventory: Inventory, authority: Authority, leaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_server(inventory, signers=live_signers(authority)) as server:
        probe = Probe(inventory, f"http://127.0.0.1:{server.port}")
        assert probe.run(authority.now()) == ()
        late = probe.run(authority.now() + timedelta(days=7, minutes=1))
        assert any("CRL t-sub@1.crl" in problem for problem in late), late
        assert any("OCSP status of t-root@1" in problem for problem in late), late
        good, ask = server.site.artefacts._read, server.site.artefacts
        ask._kept.clear()
        monkeypatch.setattr(ask, "_read", lambda path: good(path.replace(b"t-sub", b"t-root")))
        wrong = probe.run(authority.now())
        assert any("certificate of t-sub@1: other bytes" in problem for problem in wrong), wrong
        assert any("another CA's list" in problem for problem in wrong), wrong
    gone = probe.run(authority.now())
    assert gone and all("refused" in problem.lower() for problem in gone), gone


def test_shards_and_deltas_are_probed_and_measured(
    inventory: Inventory, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.configure_crls("t-sub", CrlSettings(1, 24))
    for name in ("CS-1", "CS-2"):
        authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name)))
    keeper = Keeper(authority, owner="a")
    keeper.step()
    day, week = (keeper.gauges[f"{name}_soonest_expiry_seconds"] for name in ("delta_crl", "crl"))
    assert 86000 < day <= 86400 and 604000 < week <= 604800
    with live_server(inventory, signers=live_signers(authority)) as server:
        probe = Probe(inventory, f"http://127.0.0.1:{server.port}")
        assert probe.run(authority.now()) == ()
        assert len(probe.run(authority.now() + timedelta(days=1, minutes=1))) == 1
        good, artefacts = server.site.artefacts._read, server.site.artefacts
        artefacts._kept.clear()
        monkeypatch.setattr(
            artefacts, "_read", lambda path: good(path.replace(b"/2.crl", b"/1.crl").replace(b"-delta", b""))
        )
        assert probe.run(authority.now()) == (
            "CRL t-sub@1/2.crl: another list of this CA",
            "delta CRL of t-sub@1: another list of this CA",
        )
        artefacts._kept.clear()
        monkeypatch.setattr(artefacts, "_read", lambda path: None if b"/2.crl" in path else good(path))
        (lost,) = probe.run(authority.now())
        assert lost.startswith("CRL t-sub@1/2.crl: HTTP 404")
    # A shard that has no list yet is one that has run out.
    shard = inventory.find_crl_shard("t-sub@1", 2)
    assert shard is not None
    missing = replace(shard, id="t-sub@1/3", number=3, url=shard.url.replace("/2.crl", "/3.crl"))

    def open_it(tx: Transaction) -> None:
        tx.open_crl_shard(missing)
        tx.audit(ACTOR, "crl.open-shard", missing.id, now=authority.now())

    inventory.write(open_it)
    keeper._measure()
    assert keeper.gauges["crl_soonest_expiry_seconds"] == 0.0


def test_the_probe_looks_at_another_certificate_each_time(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    authority.issue(IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr("CS-2")))
    probe, later = Probe(inventory, "http://127.0.0.1:1"), authority.now() + timedelta(minutes=2)
    sub = inventory.get_ca("t-sub")
    found = [probe._next_sample(sub, later) for _ in range(4)]
    ids = [each.id for each in found if each is not None]
    assert len(set(ids[:3])) == 3 and leaf in ids and ids[3] == ids[0]
    assert probe._next_sample(sub, authority.now()) is None


def test_readiness_tells_the_reason(inventory: Inventory, authority: Authority) -> None:
    with live_server(inventory) as server:
        assert b"self-probe" in server.ask("GET", "/readyz").body
        server.site.health.set_problems("start")
        assert server.ask("GET", "/readyz").status == 200
        server.site.health.set_problems("probe", "CRL of x: HTTP 404")
        answer = server.ask("GET", "/readyz")
        assert (answer.status, answer.body) == (503, b"CRL of x: HTTP 404\n")
        assert server.ask("GET", "/healthz").status == 200
        assert (
            b'chargepki_http_requests_total{endpoint="readyz",status="503"} 2.0' in server.ask("GET", "/metrics").body
        )


@on_both
def test_a_keeper_does_what_is_due_and_another_takes_over(
    inventory: Inventory, authority: Authority, leaf: str
) -> None:
    ticks = [0.0]
    first, second = (Keeper(authority, owner=name, clock=lambda: ticks[0]) for name in ("a", "b"))
    first.step()
    second.step()
    assert (first.leads, second.leads) == (True, False)
    before = inventory.latest_crl("t-sub@1")
    authority.revoke(leaf, "keyCompromise")
    first.step()
    response = inventory.find_ocsp_response(leaf, "sha1")
    assert response is not None and response.status.endswith("keyCompromise")
    after = inventory.latest_crl("t-sub@1")
    assert before is not None and after is not None and after.number > before.number
    first.resign()
    ticks[0] += 2
    second.step()
    assert second.leads
    # The first one believes for a moment that it leads: the inventory knows better.
    first._fence, first._extended = 1, ticks[0]
    first._sweep = first._round = float("-inf")
    inventory.write(lambda tx: tx.prune_ocsp_responses(datetime.now(UTC) + timedelta(days=30)))
    first.step()
    assert not first.leads
    assert list(inventory.list_ocsp_responses()) == []


def test_a_dead_leader_is_succeeded_when_its_lease_ends(inventory: Inventory, authority: Authority) -> None:
    dead = Keeper(authority, owner="dead")
    dead.step()
    moved = replace_clock(authority, timedelta(seconds=16))
    heir = Keeper(moved, owner="heir")
    heir.step()
    assert heir.leads


def replace_clock(authority: Authority, ahead: timedelta) -> Authority:
    return Authority(
        authority.inventory, authority.keystore, actor=authority.actor, clock=lambda: authority.now() + ahead
    )


def test_one_lost_key_does_not_stop_the_others(inventory: Inventory, authority: Authority, leaf: str) -> None:
    from testkit.authorities import MemoryKeyStore

    keystore = authority.keystore
    assert isinstance(keystore, MemoryKeyStore)
    inventory.write(lambda tx: tx.prune_ocsp_responses(datetime.now(UTC) + timedelta(days=30)))
    for uri in [uri for uri in keystore.signers if "t-root" in uri]:
        del keystore.signers[uri]
    authority._issuers._opened.clear()
    keeper = Keeper(authority, owner="a")
    keeper.step()
    assert keeper.failures and all("t-root" in failure for failure in keeper.failures), keeper.failures
    assert inventory.find_ocsp_response(leaf, "sha1") is not None
