"""A CA whose issuer is in another, offline workspace: every answer is verified before anything changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.offline import accept_answer, answer_request, request_ca
from chargepki.pki.authority.offline_files import CaAnswer, CaRequestFile
from chargepki.pki.authority.offline_lists import import_crl
from chargepki.pki.chain import verify_chain
from chargepki.pki.errors import ChargePkiError, Conflict, InputError, NotFound, PolicyRefusal, StateError
from chargepki.pki.inventory.records import CaState
from testkit.authorities import NOW, MemoryKeyStore, log_findings, make_authority, make_csr, open_inventory

SUBJECT = (("CN", "Sub"), ("O", "Test CSO"), ("C", "DE"))
ORDER = CaOrder("s", "ocpp/cso-sub", subject=SUBJECT)


@dataclass
class Worlds:
    """An offline workspace with the root, an online one without, and the folder of its requests."""

    offline: Authority
    online: Authority
    folder: Path
    requests: Path

    @property
    def root_sha256(self) -> str:
        return hashlib.sha256(self.offline.inventory.get_ca("r").certificate_der or b"").hexdigest()

    def ask(self) -> CaRequestFile:
        return request_ca(self.online, self.requests, ORDER)

    def answered(self) -> CaAnswer:
        return answer_request(self.offline, self.ask(), "r")

    def established(self) -> Worlds:
        accept_answer(self.online, self.requests, self.answered(), root_sha256=self.root_sha256)
        return self

    def rows(self) -> list[object]:
        return [*self.online.inventory.list_cas(), *self.online.inventory.list_certificates()]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    folders = [tmp_path / name for name in ("offline", "online")]
    for folder in folders:
        folder.mkdir()
    with (
        open_inventory(f"sqlite:///{folders[0] / 'i.db'}", folders[0]) as offline,
        open_inventory(f"sqlite:///{folders[1] / 'i.db'}", folders[1]) as online,
    ):
        made = Worlds(make_authority(offline), make_authority(online), tmp_path, folders[1] / "requests")
        made.offline.create_ca(CaOrder("r", "ocpp/cso-root", subject=(("CN", "Root"), ("O", "Test CSO"), ("C", "DE"))))
        yield made


def test_a_ca_is_asked_for_answered_and_accepted(worlds: Worlds) -> None:
    request = CaRequestFile.parse(json.dumps(worlds.ask().to_json()).encode())
    assert request == worlds.ask()
    answer = CaAnswer.parse(json.dumps(answer_request(worlds.offline, request, "r").to_json()).encode())
    assert answer.verdict["request"]["accepted"] is True
    accepted = accept_answer(worlds.online, worlds.requests, answer, root_sha256=worlds.root_sha256)
    assert (accepted.id, accepted.state, accepted.issuer) == ("s@1", CaState.ACTIVE, "r@1")
    root = worlds.online.inventory.get_ca("r@1")
    assert root.is_external and root.certificate_der is not None
    leaf = worlds.online.issue(IssueOrder("s", "ocpp/charging-station", csr=make_csr()))
    verify_chain(leaf.certificate_der, leaf.chain[1:], [root.certificate_der], at=NOW)
    # Again: the certificate of before, and the CA of before.
    assert answer_request(worlds.offline, request, "r").certificate == answer.certificate
    assert accept_answer(worlds.online, worlds.requests, answer) == accepted
    for name, authority in (("offline", worlds.offline), ("online", worlds.online)):
        assert log_findings(authority.inventory, worlds.folder / name) == []


def altered(answer: CaAnswer, change: Callable[[dict[str, Any]], None]) -> CaAnswer:
    document = answer.to_json()
    change(document)
    return CaAnswer.parse(json.dumps(document).encode())


def test_an_answer_that_was_changed_or_is_for_somebody_else_changes_nothing(worlds: Worlds) -> None:
    answer = worlds.answered()
    stranger = make_authority(worlds.offline.inventory, keystore=MemoryKeyStore())
    stranger.create_ca(CaOrder("r2", "ocpp/cso-root", subject=(("CN", "Root"), ("O", "Test CSO"), ("C", "DE"))))
    other = answer_request(stranger, worlds.ask(), "r2")
    before = worlds.rows()

    def refuse(bad: CaAnswer, kind: type[ChargePkiError], words: str, root: str | None = worlds.root_sha256) -> None:
        with pytest.raises(kind, match=words):
            accept_answer(worlds.online, worlds.requests, bad, root_sha256=root)
        assert worlds.rows() == before

    refuse(answer, PolicyRefusal, "not on record here", None)
    refuse(other, PolicyRefusal, "not the one that was named")
    refuse(replace(answer, request_sha256="00" * 32), NotFound, "no request of this workspace")
    refuse(replace(answer, verdict={}), InputError, "not signed by the issuer")
    refuse(replace(answer, signature=other.signature), InputError, "not signed by the issuer")
    refuse(replace(answer, chain=(replace(answer.chain[0], id="../x@1"),)), InputError, "not signed by the issuer")
    refuse(replace(answer, certificate=other.certificate), ChargePkiError, "chain|signed|anchor|issuer")
    refuse(replace(answer, certificate=answer.chain[0].certificate), InputError, "not for the key")
    for change in (
        lambda document: document.pop("verdict"),
        lambda document: document.update(version=2),
        lambda document: document.update(chain=[]),
        lambda document: document.update(certificate="x"),
        lambda document: document.update(signature="%"),
    ):
        with pytest.raises(InputError):
            altered(answer, change)
    for text in (b"", b"[]", b"{" * 9999, b"\xff"):
        with pytest.raises(InputError):
            CaAnswer.parse(text)
        with pytest.raises(InputError):
            CaRequestFile.parse(text)


def test_what_no_root_may_certify_is_refused_there(worlds: Worlds) -> None:
    request = worlds.ask()
    with pytest.raises(PolicyRefusal, match="does not issue"):
        answer_request(worlds.offline, replace(request, profile="iso15118-2/cpo-sub1"), "r")
    with pytest.raises(PolicyRefusal, match="no profile of a CA below a root"):
        answer_request(worlds.offline, replace(request, profile="ocpp/charging-station"), "r")
    with pytest.raises(PolicyRefusal, match="no profile of a CA below a root"):
        request_ca(worlds.online, worlds.requests, CaOrder("x", "ocpp/cso-root"))
    with pytest.raises(Conflict, match="exists already"):
        request_ca(worlds.online, worlds.requests, replace(ORDER, subject=(("CN", "Another"), ("O", "X"))))


def test_the_next_generation_is_asked_for_in_the_same_way(worlds: Worlds) -> None:
    worlds.established()
    request = worlds.ask()
    assert request.ca == "s@2"
    # Until it is accepted the first one issues.
    assert worlds.online.issue(IssueOrder("s", "ocpp/charging-station", csr=make_csr())).record.ca == "s@1"
    accept_answer(worlds.online, worlds.requests, answer_request(worlds.offline, request, "r"))
    states = {ca.id: ca.state for ca in worlds.online.inventory.list_cas(name="s")}
    assert states == {"s@1": CaState.RETIRED, "s@2": CaState.ACTIVE}
    assert worlds.online.issue(IssueOrder("s", "ocpp/charging-station", csr=make_csr("CS-2"))).record.ca == "s@2"


def test_a_list_of_the_offline_root_is_verified_published_and_obeyed(worlds: Worlds) -> None:
    worlds.established()
    first = worlds.offline.publish_lists("r", validity=timedelta(days=180)).full
    assert first is not None and first.next_update - first.this_update == timedelta(days=180)
    assert import_crl(worlds.online, first.der).der == first.der == import_crl(worlds.online, first.der).der
    sub = next(each for each in worlds.offline.inventory.list_certificates() if each.profile == "ocpp/cso-sub")
    worlds.offline.revoke(sub.id, "keyCompromise")
    second = worlds.offline.publish_crl("r")
    import_crl(worlds.online, second.der)
    assert worlds.online.inventory.get_ca("s@1").state is CaState.REVOKED
    before = worlds.rows()
    with pytest.raises(StateError, match="not newer"):
        import_crl(worlds.online, first.der)
    with pytest.raises(InputError, match="no CA on record"):
        import_crl(worlds.offline, second.der)
    changed = bytearray(second.der)
    changed[-1] ^= 1
    with pytest.raises(InputError, match="no CA on record"):
        import_crl(worlds.online, bytes(changed))
    late = make_authority(worlds.online.inventory, clock=lambda: NOW + timedelta(days=400))
    with pytest.raises(StateError, match="not in force"):
        import_crl(late, second.der)
    assert worlds.rows() == before
    assert log_findings(worlds.online.inventory, worlds.folder / "online") == []


def test_a_list_that_takes_a_revocation_back_is_refused(worlds: Worlds) -> None:
    worlds.established()
    sub = next(each for each in worlds.online.inventory.list_certificates() if each.profile == "ocpp/cso-sub")
    worlds.online.revoke(sub.id, "keyCompromise", record_only=True)
    with pytest.raises(StateError, match="lacks"):
        import_crl(worlds.online, worlds.offline.publish_crl("r").der)
