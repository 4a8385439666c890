"""An offline root's responder: certified where the root's key is, it tells the status of sub-CAs elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from chargepki.pki.authority import Authority, CaOrder, utc_now
from chargepki.pki.authority.ocsp import OcspAuthority, find_delegate, ocsp_cas
from chargepki.pki.authority.offline import accept_answer, answer_request, request_ca
from chargepki.pki.authority.offline_files import CaAnswer, CaRequestFile
from chargepki.pki.authority.offline_lists import import_crl
from chargepki.pki.authority.offline_responder import request_responder
from chargepki.pki.errors import Conflict, InputError, PolicyRefusal, SignerError, StateError
from chargepki.pki.evidence import verify_ocsp_status
from testkit.authorities import MemoryKeyStore, log_findings, make_authority, open_inventory
from testkit.pki_server import live_server, live_signers, ocsp_request

SUBJECT = (("CN", "V2G Root"), ("O", "Test Root"), ("C", "DE"), ("DC", "V2G"))


@dataclass
class Worlds:
    """An offline workspace with the root, and an online one with its sub-CA; both at one clock."""

    offline: Authority
    online: Authority
    folder: Path
    now: list[datetime]

    def ask(self, *, validity: timedelta | None = timedelta(days=365)) -> CaRequestFile:
        return request_responder(self.online, self.folder, "r", validity=validity)

    def accept(self, answer: CaAnswer) -> None:
        accept_answer(self.online, self.folder, answer)

    def delegated(self) -> Worlds:
        self.accept(answer_request(self.offline, self.ask(), "r"))
        return self

    @property
    def sub(self) -> str:
        """Id of the sub-CA's certificate."""
        return next(each.id for each in self.online.inventory.list_certificates() if each.profile.endswith("cpo-sub1"))

    def status(self, der: bytes) -> str:
        """What a client that believes the root makes of an answer about the sub-CA."""
        root = self.online.inventory.get_ca("r").certificate_der
        assert root is not None
        serial = int(self.sub.partition(":")[2], 16)
        return verify_ocsp_status(der, root, serial, at=self.online.now(), max_age=timedelta(days=7)).status


@pytest.fixture
def worlds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worlds]:
    standard = getattr(request, "param", "iso15118-2")
    folders = [tmp_path / name for name in ("offline", "online")]
    for folder in folders:
        folder.mkdir()
    with (
        open_inventory(f"sqlite:///{folders[0] / 'i.db'}", folders[0]) as offline,
        open_inventory(f"sqlite:///{folders[1] / 'i.db'}", folders[1]) as online,
    ):
        now = [utc_now() - timedelta(minutes=5)]
        both = [make_authority(each, keystore=MemoryKeyStore(), clock=lambda: now[0]) for each in (offline, online)]
        both[0].create_ca(CaOrder("r", f"{standard}/v2g-root", subject=SUBJECT))
        subject = (("CN", "CPO Sub"), ("O", "Test CPO"), ("C", "DE"), ("DC", "V2G"))
        asked = request_ca(both[1], folders[1] / "requests", CaOrder("s", f"{standard}/cpo-sub1", subject=subject))
        made = Worlds(both[0], both[1], folders[1] / "requests", now)
        digest = hashlib.sha256(offline.get_ca("r").certificate_der or b"").hexdigest()
        accept_answer(both[1], made.folder, answer_request(both[0], asked, "r"), root_sha256=digest)
        yield made


@pytest.mark.parametrize("worlds", ["iso15118-2", "iso15118-20"], indirect=True)
def test_a_sub_ca_of_an_offline_root_is_answered_for_over_http_until_the_root_revokes_it(worlds: Worlds) -> None:
    inventory = worlds.online.inventory
    record = inventory.get_certificate(worlds.sub)
    request = ocsp_request(inventory, record)
    with live_server(inventory, signers=live_signers(worlds.online), clock=worlds.online.now) as server:
        # Nobody may answer yet: "unauthorized" (RFC 5019 2.2.3).
        assert server.ocsp(request).body == bytes.fromhex("30030a0106")
        worlds.delegated()
        server.until(lambda: server.ocsp(request).body != bytes.fromhex("30030a0106"))
        assert worlds.status(server.ocsp(request).body) == "good"
        OcspAuthority(worlds.online).presign(inventory.get_ca("r"))
        staple = server.ask("GET", f"/staples/r@1/{record.serial}.ocsp?hash=sha256")
        assert staple.status == 200 and worlds.status(staple.body) == "good"
        worlds.offline.revoke(worlds.sub, "cACompromise")
        import_crl(worlds.online, worlds.offline.publish_crl("r").der)
        server.until(lambda: worlds.status(server.ocsp(request).body) == "revoked")
    assert log_findings(inventory, worlds.folder.parent) == []


def test_only_what_was_asked_for_is_believed(worlds: Worlds) -> None:
    asked = worlds.ask()
    assert asked == worlds.ask() == CaRequestFile.parse(asked.encoded)
    with pytest.raises(PolicyRefusal, match="r@9"):
        answer_request(worlds.offline, replace(asked, ca="r@9"), "r")
    with pytest.raises(PolicyRefusal, match="not offline"):
        request_responder(worlds.online, worlds.folder, "s", validity=None)
    answer = answer_request(worlds.offline, asked, "r")
    before = list(worlds.online.inventory.list_certificates())
    with pytest.raises(InputError, match="not signed by the issuer"):
        worlds.accept(replace(answer, verdict={}))
    with pytest.raises(InputError, match="not for the key"):
        worlds.accept(replace(answer, certificate=answer.chain[0].certificate))
    assert list(worlds.online.inventory.list_certificates()) == before
    accepted = CaAnswer.parse(json.dumps(answer.to_json()).encode())
    worlds.accept(accepted)
    worlds.accept(accepted)
    with pytest.raises(Conflict, match="answered already"):
        worlds.accept(other(worlds, asked))
    # The next one has a key of its own.
    assert worlds.ask().csr != asked.csr


def other(worlds: Worlds, asked: CaRequestFile) -> CaAnswer:
    """Return another certificate for the same request, which the offline machine gives after it lost its records."""
    record = next(each for each in worlds.offline.inventory.list_certificates() if each.profile == "common/ocsp-signer")
    worlds.offline.revoke(record.id, "superseded")
    return answer_request(worlds.offline, asked, "r")


def test_a_responder_that_ends_is_told_of_in_time_and_then_answers_no_more(worlds: Worlds) -> None:
    worlds.delegated()
    signing, root = OcspAuthority(worlds.online), worlds.online.inventory.get_ca("r")
    ids = {ca.id for ca in ocsp_cas(worlds.online.inventory, worlds.now[0])}
    assert ids == {"r@1", "s@1"} and signing.renew_signers() == []
    worlds.now[0] += timedelta(days=356)
    (failure,) = signing.renew_signers()
    assert "ends on" in str(failure) and "--profile common/ocsp-signer" in failure.fix
    assert signing.signer(root).certificate  # it goes on until then
    worlds.now[0] += timedelta(days=20)
    assert find_delegate(worlds.online.inventory, worlds.online.keystore, root, worlds.now[0]) is None
    assert "r@1" not in {ca.id for ca in ocsp_cas(worlds.online.inventory, worlds.now[0])}
    assert [type(each) for each in signing.renew_signers()] == [StateError]
    with pytest.raises(SignerError, match="nobody here may answer"):
        signing.signer(root)
    worlds.delegated()
    assert signing.renew_signers() == [] and signing.signer(root).not_after > worlds.now[0]
