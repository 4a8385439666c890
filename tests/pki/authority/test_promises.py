"""Promises that incidents of other CAs have bought, where no other test shows them (`promises.toml` lists all)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chargepki.pki import names
from chargepki.pki.authority import Authority, IssueOrder, batch, issuance, order_judge
from chargepki.pki.authority.issuance import complete
from chargepki.pki.errors import PolicyRefusal, ProfileViolation
from chargepki.pki.inventory import Inventory
from chargepki.pki.policy import choose_dns_names
from chargepki.pki.profiles import get_profile
from chargepki.pki.template import build_tbs
from testkit.authorities import make_csr, open_inventory

CSMS = ("a.example", "b.example", "c.example")
HOST = IssueOrder("t-sub", "ocpp/csms", csr=make_csr(CSMS[0]), dns_names=CSMS)


@pytest.fixture
def inventory(sqlite_url: str, tmp_path: Path) -> Iterator[Inventory]:
    """What is judged before anything is stored is judged alike above either database."""
    with open_inventory(sqlite_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The certificates that were signed."""
    found: list[str] = []

    def watched(record: Any, issuer: Any) -> bytes:
        found.append(record.id)
        return complete(record, issuer)

    monkeypatch.setattr(batch, "complete", watched)
    return found


def left_nothing(authority: Authority, signed: list[str]) -> bool:
    made = [each.profile for each in authority.inventory.list_certificates()]
    return not signed and sorted(made) == ["ocpp/cso-root", "ocpp/cso-sub"]


@pytest.mark.parametrize("place", range(3))
def test_p03_every_name_is_judged_by_the_policy_and_again_in_the_bytes(
    authority: Authority, signed: list[str], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    wrong = tuple("*.example" if number == place else name for number, name in enumerate(CSMS))
    subject = names.build_name([("CN", wrong[0]), ("O", "Test CSO")])
    with pytest.raises(PolicyRefusal, match="example"):
        choose_dns_names(get_profile("ocpp/csms"), subject, wrong)
    monkeypatch.setattr(order_judge, "choose_dns_names", lambda *_: wrong)
    with pytest.raises(ProfileViolation, match=r"\*\.example"):
        authority.issue(HOST)
    assert left_nothing(authority, signed)


def test_p09_no_order_says_when_a_certificate_begins() -> None:
    assert not [name for name in inspect.signature(IssueOrder).parameters if "before" in name or "_at" in name]
    assert "not_before" not in inspect.signature(Authority.issue_many).parameters


@pytest.mark.parametrize("change", ["subject", "names"])
def test_p10_p12_the_bytes_that_would_be_signed_are_judged_whatever_the_request_said(
    authority: Authority, signed: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The request is faultless; what is made of it is not."""
    real = build_tbs
    other: dict[str, Any] = {
        "subject": {"subject_der": names.name_der(names.build_name([("CN", "csms.example.org"), ("O", "Test CSO")]))},
        "names": {"dns_names": ("csms.example.org",)},
    }

    def gone_wrong(*arguments: Any, **named: Any) -> bytes:
        profile = get_profile("ocpp/csms") if change == "names" else arguments[0]
        return real(profile, **{**named, **other[change]})

    order = IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr("CS-1"))
    with monkeypatch.context() as patch:
        patch.setattr(issuance, "build_tbs", gone_wrong)
        with pytest.raises(ProfileViolation, match="would break its profile ocpp/charging-station"):
            authority.issue(order)
    assert left_nothing(authority, signed)
    assert authority.issue(order).record.id == signed[0]
