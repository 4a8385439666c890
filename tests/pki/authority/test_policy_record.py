"""The rules of the request policy that look at what is on record, on both databases."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from chargepki.pki import keys
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder
from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.inventory.reads import MOST_OF_A_KEY
from chargepki.pki.keys import PrivateKey
from chargepki.pki.lint.weak_keys import WeakKeys
from chargepki.pki.policy_settings import Mode, PolicySettings, Rate
from testkit.authorities import ACTOR, NOW, make_csr, make_key
from testkit.inventories import add_station

PROFILE = "ocpp/charging-station"


def ask(
    authority: Authority,
    name: str,
    key: PrivateKey,
    *,
    request: bytes | None = None,
    again: bool = False,
) -> IssuedCertificate:
    csr = request or make_csr(name, key=key)
    return authority.issue(IssueOrder(ca="t-sub", profile=PROFILE, csr=csr, again=again))


def outcomes(issued: IssuedCertificate) -> dict[str, str]:
    """Return the outcome of each rule that looks at the record, as it is kept with the certificate."""
    stored = issued.record.verdict["record"]
    kept = [each if isinstance(each, dict) else {"rule": each, "outcome": "pass"} for each in stored]
    assert len({each["rule"] for each in kept}) == len(kept)
    return {each["rule"]: each["outcome"] for each in kept}


def enforce(authority: Authority, *rules: str) -> None:
    authority.policy = PolicySettings(modes=dict.fromkeys(rules, Mode.ENFORCE))


def later_than(authority: Authority, span: timedelta) -> Authority:
    now = NOW + span
    return Authority(authority.inventory, authority.keystore, actor=ACTOR, clock=lambda: now, policy=authority.policy)


def test_a_first_request_passes_every_rule(authority: Authority) -> None:
    assert outcomes(ask(authority, "CS-1", make_key())) == {
        "compromised-key": "pass", "key-reuse": "pass", "key-renewal": "pass", "key-revoked": "pass", "replay": "pass",
        "rate": "not-evaluated", "weak-key": "not-evaluated",
    }  # fmt: skip


def test_the_key_of_somebody_else_is_remarked_on_or_refused(authority: Authority) -> None:
    key = make_key()
    first = ask(authority, "CS-1", key)
    second = ask(authority, "CS-2", key)
    assert outcomes(second)["key-reuse"] == "notice" and outcomes(second)["key-renewal"] == "pass"
    assert first.record.id in str(second.record.verdict["record"])
    enforce(authority, "key-reuse")
    with pytest.raises(PolicyRefusal, match="the key is also that of"):
        ask(authority, "CS-3", key)


def test_two_that_ask_at_once_for_one_key_are_not_both_the_only_one(authority: Authority) -> None:
    enforce(authority, "key-reuse")
    key = make_key()

    def attempt(number: int) -> str:
        try:
            return ask(authority, f"CS-{number}", key).record.id
        except PolicyRefusal:
            return ""

    with ThreadPoolExecutor(4) as pool:
        issued = [each for each in pool.map(attempt, range(4)) if each]
    assert len(issued) == 1


def test_a_renewal_with_the_old_key_is_told_from_a_stolen_one(authority: Authority) -> None:
    key = make_key()
    ask(authority, "CS-1", key)
    renewed = ask(authority, "CS-1", key, again=True)
    assert outcomes(renewed)["key-renewal"] == "notice" and outcomes(renewed)["key-reuse"] == "pass"


def test_a_revoked_key_and_a_replayed_request_are_remarked_on(authority: Authority) -> None:
    key = make_key()
    request = make_csr("CS-1", key=key)
    first = ask(authority, "CS-1", key, request=request)
    authority.revoke(first.record.id, "cessationOfOperation")
    again = ask(authority, "CS-1", key, request=request)
    assert again.record.id != first.record.id
    assert (outcomes(again)["key-revoked"], outcomes(again)["replay"]) == ("notice", "notice")
    authority.revoke(again.record.id, "superseded")
    enforce(authority, "replay")
    with pytest.raises(PolicyRefusal, match="this very request was answered"):
        ask(authority, "CS-1", key, request=request)


def test_what_was_superseded_says_nothing_against_its_key(authority: Authority) -> None:
    key = make_key()
    authority.revoke(ask(authority, "CS-1", key).record.id, "superseded")
    assert outcomes(ask(authority, "CS-1", key))["key-revoked"] == "pass"


def test_the_rate_counts_the_certificates_of_a_station_within_its_window(authority: Authority) -> None:
    add_station(authority.inventory, "CS-1")
    authority.policy = PolicySettings(rate=Rate(2, timedelta(hours=1)))
    for _ in range(2):
        assert outcomes(ask(authority, "CS-1", make_key()))["rate"] == "pass"
    with pytest.raises(PolicyRefusal, match="given 2 certificates already"):
        ask(authority, "CS-1", make_key())
    assert outcomes(ask(authority, "CS-2", make_key()))["rate"] == "not-evaluated", "it is no station"
    later = later_than(authority, timedelta(hours=2))
    assert outcomes(ask(later, "CS-1", make_key()))["rate"] == "pass"


def test_a_listed_key_is_refused_before_anything_is_reserved(authority: Authority) -> None:
    key = make_key()
    listed = hashlib.sha256(keys.spki_der(key.public_key())).hexdigest()
    authority.policy = PolicySettings(weak_keys=WeakKeys(frozenset(), frozenset({listed})))
    with pytest.raises(PolicyRefusal, match="list of weak keys"):
        ask(authority, "CS-1", key)
    assert outcomes(ask(authority, "CS-2", make_key()))["weak-key"] == "pass"
    authority.policy = replace(authority.policy, modes={"weak-key": Mode.WARN})
    assert outcomes(ask(authority, "CS-1", key))["weak-key"] == "notice"


def test_a_rule_that_is_off_leaves_no_trace(authority: Authority) -> None:
    authority.policy = PolicySettings(modes={"key-reuse": Mode.OFF, "rate": Mode.OFF})
    assert not {"key-reuse", "rate"} & outcomes(ask(authority, "CS-1", make_key())).keys()


def test_a_compromise_counts_however_many_certificates_the_key_got_since(authority: Authority) -> None:
    key = make_key()
    first = ask(authority, "CS-0", key)
    later = later_than(authority, timedelta(minutes=1))
    for number in range(MOST_OF_A_KEY):
        ask(later, f"CS-{number + 1}", key)
    authority.revoke(first.record.id, "keyCompromise")
    assert first.record.id not in [
        each.id for each in authority.inventory.list_certificates_of_key(first.record.spki_sha256)
    ]
    with pytest.raises(PolicyRefusal, match="known to be compromised"):
        ask(authority, "CS-1", key, again=True)
