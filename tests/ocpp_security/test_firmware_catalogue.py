"""Releases: nothing is sent without a second person, and nothing that a station would refuse."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.firmware import verify_firmware
from chargepki.ocpp_security.firmware_admission import AdmissionRefused, Known, admit, known_about
from chargepki.ocpp_security.firmware_approval import approval_statement
from chargepki.ocpp_security.firmware_catalogue import FirmwareCatalogue, ReleaseOffer, check_location, image_path
from chargepki.pki.errors import Conflict, InputError, NotFound, PolicyRefusal, StateError, UnavailableError
from chargepki.pki.inventory import AuditKey, Inventory, verify_log
from chargepki.pki.inventory.firmware_records import (
    FirmwareReleaseRecord,
    FirmwareReleaseState,
    StationFirmwareRecord,
)
from chargepki.pki.inventory.records import Actor, ActorKind
from chargepki.pki.keys import KeyAlgorithm, spki_der
from chargepki.pki.signer import Signer
from testkit.chains import AT, DAY
from testkit.databases import database_url, postgresql_server, postgresql_url, sqlite_url
from testkit.firmware import IMAGE, foreign_signature, maker, pem
from testkit.requests import key_of

__all__ = ["database_url", "postgresql_server", "postgresql_url", "sqlite_url"]

ALICE = Actor("alice", ActorKind.OS_USER, authenticated=False)
BOB = Signer.of("file:bob.key", key_of(KeyAlgorithm.ED25519, 20))
EVE = Signer.of("file:eve.key", key_of(KeyAlgorithm.SECP384R1, 20))
SPKI_OF_SIGNER = spki_der(maker().ecdsa.key)


@dataclass(frozen=True, slots=True)
class Shop:
    inventory: Inventory
    catalogue: FirmwareCatalogue
    home: Path
    image: Path

    def add(self, name: str = "m1-1.4.0", version: str = "1.4.0", **more: str) -> FirmwareReleaseRecord:
        signature = foreign_signature(maker().ecdsa, IMAGE)
        verified = verify_firmware(
            self.image, signature=signature, certificate_pem=pem(maker().ecdsa), trust=maker().trust, at=AT
        )
        return self.catalogue.add(
            ReleaseOffer(name, "Acme", "M1", version, **more), self.image, verified,
            signature=signature, certificate_pem=pem(maker().ecdsa), root_der=maker().root.der, quirks=(), now=AT,
        )  # fmt: skip

    def approve(self, name: str = "m1-1.4.0") -> FirmwareReleaseRecord:
        return self.catalogue.approve(name, "bob", self.catalogue.sign_approval(name, BOB), now=AT)


@contextlib.contextmanager
def opened(url: str, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "image").write_bytes(IMAGE)
    key = AuditKey.load_or_create(tmp_path / "audit.key")
    inventory = Inventory.open(url, log_key=key)
    catalogue = FirmwareCatalogue(inventory, tmp_path, actor=ALICE)
    catalogue.register_approver("bob", BOB.spki_der, now=AT)
    yield Shop(inventory, catalogue, tmp_path, tmp_path / "image")
    # Whatever was done, the log explains every row.
    assert verify_log(inventory, checkpoint=None, pinned_keys=[key.public]).findings == ()
    inventory.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with opened(f"sqlite:///{tmp_path / 'inventory.db'}", tmp_path) as made:
        yield made


@pytest.fixture
def any_shop(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    """Give the shop on both databases, for what is more than reading."""
    with opened(database_url, tmp_path) as made:
        yield made


APPROVED = Known(is_approved=True)


def refusal(
    record: FirmwareReleaseRecord,
    station: StationFirmwareRecord | None = None,
    *,
    known: Known = APPROVED,
    **more: object,
) -> str:
    with pytest.raises(AdmissionRefused) as caught:
        admit(record, station, known=known, now=AT, **more)  # type: ignore[arg-type]  # passed on
    assert caught.value.check in caught.value.why
    return caught.value.check


def runs(version: str, model: str = "M1") -> StationFirmwareRecord:
    return StationFirmwareRecord("CS-1", "Acme", model, version, AT)


def test_a_release_is_kept_with_its_image_and_needs_a_second_person(shop: Shop) -> None:
    added = shop.add()
    assert (added.state, added.added_by) == (FirmwareReleaseState.PROPOSED, "alice")
    assert hashlib.sha256(image_path(shop.home, added).read_bytes()).hexdigest() == added.sha256
    assert refusal(added) == "approval"
    approved = shop.approve()
    known = known_about(shop.inventory, approved)
    assert admit(approved, runs("1.3.9"), known=known, now=AT).release == approved
    entries = shop.inventory.list_audit()
    assert [entry.action for entry in entries[-2:]] == ["firmware.add", "firmware.approve"]
    assert entries[-1].details["approver"] == "bob"
    assert entries[-1].artefact_sha256 == added.sha256


def test_only_a_registered_second_persons_signature_over_this_release_approves(any_shop: Shop) -> None:
    shop = any_shop
    catalogue = shop.catalogue
    record, other = shop.add(), shop.add("m1-1.5.0", "1.5.0")
    good = catalogue.sign_approval(record.id, BOB)
    for release, approver, signature, error in (
        (record.id, "bob", catalogue.sign_approval(other.id, BOB), PolicyRefusal),
        (record.id, "bob", catalogue.sign_approval(record.id, EVE), PolicyRefusal),
        (record.id, "bob", b"", PolicyRefusal),
        (record.id, "nobody", good, NotFound),
        ("absent", "bob", good, NotFound),
    ):
        with pytest.raises(error):
            catalogue.approve(release, approver, signature, now=AT)
    with pytest.raises(Conflict, match="key stands for one person"):
        catalogue.register_approver("bobs-other-name", BOB.spki_der, now=AT)
    # Neither who added it, nor whose key signed the image.
    catalogue.register_approver("alice", EVE.spki_der, now=AT)
    with pytest.raises(PolicyRefusal, match="added m1"):
        catalogue.approve(record.id, "alice", catalogue.sign_approval(record.id, EVE), now=AT)
    catalogue.register_approver("builder", SPKI_OF_SIGNER, now=AT)
    with pytest.raises(PolicyRefusal, match="signed the image"):
        catalogue.approve(record.id, "builder", b"", now=AT)
    assert catalogue.approve(record.id, "bob", good, now=AT).state is FirmwareReleaseState.APPROVED
    with pytest.raises(Conflict):
        catalogue.approve(record.id, "bob", good, now=AT)
    catalogue.remove_approver("bob", now=AT)
    with pytest.raises(StateError, match="not approve any more"):
        shop.approve(other.id)


def test_the_statement_covers_everything_that_a_station_is_told(shop: Shop) -> None:
    record = shop.add()
    statement = approval_statement(record)
    assert statement.endswith(b"\n")
    for change in (
        {"version": "1.4.1"}, {"model": "M2"}, {"hardware": "b"}, {"sha256": "00"}, {"size": 1}, {"signature": "A"},
        {"certificate_pem": ""}, {"root_der": b""}, {"quirks": "pkcs1-v15"}, {"location": "https://x.example/i"},
    ):  # fmt: skip
        assert approval_statement(dataclasses.replace(record, **change)) != statement, change


def test_what_is_withdrawn_is_never_sent_again(any_shop: Shop) -> None:
    shop = any_shop
    shop.add()
    shop.approve()
    withdrawn = shop.catalogue.withdraw("m1-1.4.0", reason="bricks", now=AT)
    assert shop.catalogue.withdraw("m1-1.4.0", reason="again", now=AT) == withdrawn
    assert refusal(withdrawn) == "withdrawn"
    with pytest.raises(StateError, match="withdrawn"):
        shop.approve()
    # Its version is free for a better image, its name is not.
    with pytest.raises(Conflict):
        shop.add()
    shop.add("m1-1.4.0-again")


def test_two_images_of_one_version_are_refused_however_it_is_written(any_shop: Shop) -> None:
    shop = any_shop
    shop.add()
    with pytest.raises(Conflict, match="is the release"):
        shop.add("other", "v1.4.0")
    shop.add("for-b", "1.4.0", hardware="b")


def test_admission_names_the_check_that_fails(shop: Shop) -> None:
    shop.add()
    record = shop.approve()
    assert refusal(record, runs("1.4.1")) == "rollback"
    assert refusal(record, runs("1.0", model="M2")) == "model"
    assert refusal(record, runs("FW 1.4.1")) == "rollback"
    assert refusal(record, known=Known(is_approved=True, revoked=frozenset({maker().ecdsa.der}))) == "certificate"
    assert refusal(record, known=Known(is_approved=True, revoked=frozenset({maker().root.der}))) == "certificate"
    assert refusal(record, None, install_at=AT + 40 * DAY) == "certificate"
    assert refusal(record, None, retrieve_at=AT + 40 * DAY) == "certificate"
    assert refusal(dataclasses.replace(record, sha256="00" * 32)) == "signature"
    assert refusal(dataclasses.replace(record, root_der=maker().rsa.der)) == "certificate"
    assert refusal(record, None, location="https://h.example/" + "x" * 600) == "location"
    assert refusal(record, None, location="file:///etc/passwd") == "location"
    with pytest.raises(AdmissionRefused):
        admit(record, None, known=APPROVED, now=AT + timedelta(days=40))
    # The same version again, and a station that has not told anything, are no reasons.
    known = known_about(shop.inventory, record)
    assert known == APPROVED
    assert admit(record, runs("1.4.0"), known=known, now=AT).notices == ("the revocation status was not looked at",)
    assert any("rollback" in notice for notice in admit(record, None, known=known, now=AT).notices)
    assert any("rollback" in notice for notice in admit(record, runs(""), known=known, now=AT).notices)


def test_what_was_changed_behind_its_approval_is_not_sent(any_shop: Shop) -> None:
    """Whoever can write to the database can write "approved", or another location; the signature they cannot."""
    shop = any_shop
    proposed = shop.add()
    written = dataclasses.replace(proposed, state=FirmwareReleaseState.APPROVED)
    assert refusal(written, known=known_about(shop.inventory, written)) == "approval"
    record = shop.approve()
    assert known_about(shop.inventory, record).is_approved
    for changed in (
        dataclasses.replace(record, location="https://evil.example/i"),
        dataclasses.replace(record, model=""),
        dataclasses.replace(record, version="9.9"),
        dataclasses.replace(record, added_by="BOB"),
    ):
        assert refusal(changed, known=known_about(shop.inventory, changed)) == "approval", changed
    # Who approved may leave; the approval stands.
    shop.catalogue.remove_approver("bob", now=AT)
    assert known_about(shop.inventory, record).is_approved


def test_a_name_in_other_letters_is_no_second_person(shop: Shop) -> None:
    shop.catalogue.register_approver("Alice", EVE.spki_der, now=AT)
    shop.add()
    with pytest.raises(PolicyRefusal, match="cannot approve it"):
        shop.catalogue.approve("m1-1.4.0", "Alice", shop.catalogue.sign_approval("m1-1.4.0", EVE), now=AT)
    with pytest.raises(Conflict, match="one name"):
        shop.catalogue.register_approver("BOB", spki_der(key_of(KeyAlgorithm.ED25519, 21)), now=AT)


def test_an_image_that_changes_or_vanishes_is_noticed(shop: Shop) -> None:
    record = shop.add()
    assert shop.catalogue.check_image(record) == image_path(shop.home, record)
    image_path(shop.home, record).write_bytes(b"short")
    with pytest.raises(UnavailableError, match="5 bytes"):
        shop.catalogue.check_image(record)
    image_path(shop.home, record).unlink()
    with pytest.raises(UnavailableError, match="not in the workspace"):
        shop.catalogue.check_image(record)
    signature = foreign_signature(maker().ecdsa, IMAGE)
    verified = verify_firmware(
        shop.image, signature=signature, certificate_pem=pem(maker().ecdsa), trust=maker().trust, at=AT
    )
    shop.image.write_bytes(IMAGE[::-1])
    with pytest.raises(StateError, match="changed"):
        shop.catalogue.add(
            ReleaseOffer("other", "Acme", "M1", "9.0"), shop.image, verified, signature=signature,
            certificate_pem=pem(maker().ecdsa), root_der=maker().root.der, quirks=(), now=AT,
        )  # fmt: skip
    assert shop.inventory.find_release("other") is None
    assert list((shop.home / "firmware").iterdir()) == []


@pytest.mark.parametrize(
    "location",
    ["", "image.bin", "file:///x", "https://", "https://u:p@h/x", "https://h/\u00e9", "http://[::1", "h" * 600],
)
def test_a_location_that_no_station_can_fetch_is_refused(location: str) -> None:
    with pytest.raises(InputError):
        check_location(location)


@pytest.mark.parametrize(
    "offer",
    [
        ReleaseOffer("a b", "Acme", "M1", "1"),
        ReleaseOffer("a", "Acme", "M\n1", "1"),
        ReleaseOffer("a", "Acme", "x" * 51, "1"),
        ReleaseOffer("a", "Acme", "M1", "latest"),
        ReleaseOffer("a", "Acme", "M1", "1", notes="x" * 5000),
    ],
)
def test_words_that_no_station_tells_are_refused(shop: Shop, offer: ReleaseOffer) -> None:
    signature = foreign_signature(maker().ecdsa, IMAGE)
    verified = verify_firmware(
        shop.image, signature=signature, certificate_pem=pem(maker().ecdsa), trust=maker().trust, at=AT
    )
    with pytest.raises(InputError):
        shop.catalogue.add(
            offer, shop.image, verified, signature=signature, certificate_pem=pem(maker().ecdsa),
            root_der=maker().root.der, quirks=(), now=AT,
        )  # fmt: skip
