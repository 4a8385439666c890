"""The station's store: what is on disk, who may read it, and what a restart finds."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chargepki.ocpp_security.sign_certificate import InstalledCertificate, PendingRequest
from chargepki.ocpp_security.station.store import QueuedEvent, StationStore
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki.errors import InputError, NotFound, SignerError, StateError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, generate_private_key, spki_der, spki_sha256
from testkit.hierarchy import make_node

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> StationStore:
    opened = StationStore(tmp_path / "store")
    opened.begin("CS1", "SN1", {"OrganizationName": "O"})
    return opened


def request_for(key: PrivateKey, number: int = 1) -> PendingRequest:
    return PendingRequest(number, CertificateUse.CHARGING_STATION, "csr", spki_sha256(spki_der(key)), NOW)


def certificate_for(key: PrivateKey, sha256: str = "ab" * 32) -> InstalledCertificate:
    der = make_node("SN1", None, ca=False).der
    return InstalledCertificate(
        use=CertificateUse.CHARGING_STATION,
        chain_der=(der,),
        sha256=sha256,
        spki_sha256=spki_sha256(spki_der(key)),
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        installed_at=NOW,
    )


def test_a_restart_finds_requests_certificates_events_and_variables(store: StationStore) -> None:
    key = generate_private_key(KeyAlgorithm.SECP256R1)
    store.add_request(request_for(key), key)
    store.put_certificate(certificate_for(key))
    store.queue_event(QueuedEvent("StartupOfTheDevice", NOW, "x"))
    store.set_variables({"OrganizationName": "P"})
    store.set_profile(3)
    again = StationStore(store.folder)
    assert again.state == store.state
    assert spki_der(again.private_key(spki_sha256(spki_der(key)))) == spki_der(key)


def test_secrets_are_readable_by_their_owner_alone(store: StationStore) -> None:
    key = generate_private_key(KeyAlgorithm.SECP256R1)
    store.add_request(request_for(key), key)
    store.set_password(b"0123456789abcdef")
    store.offer_password(b"fedcba9876543210")
    secret_files = [*store.folder.glob("keys/*"), *store.folder.glob("password*"), store.folder / "station.json"]
    assert len(secret_files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret_files} == {0o600}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_not_used(store: StationStore) -> None:
    key = generate_private_key(KeyAlgorithm.SECP256R1)
    store.add_request(request_for(key), key)
    next(store.folder.glob("keys/*")).chmod(0o644)
    with pytest.raises(SignerError, match="chmod"):
        store.private_key(spki_sha256(spki_der(key)))


def test_a_dropped_request_takes_its_key_along_unless_a_certificate_uses_it(store: StationStore) -> None:
    kept, dropped = generate_private_key(KeyAlgorithm.SECP256R1), generate_private_key(KeyAlgorithm.SECP256R1)
    store.add_request(request_for(kept, 1), kept)
    store.add_request(request_for(dropped, 2), dropped)
    store.put_certificate(certificate_for(kept))
    store.drop_requests([request_for(kept, 1), request_for(dropped, 2)])
    assert [path.stem for path in store.folder.glob("keys/*")] == [spki_sha256(spki_der(kept))]
    store.discard_certificate(certificate_for(kept))
    assert list(store.folder.glob("keys/*")) == list(store.folder.glob("certificates/*")) == []


def test_a_certificate_without_its_key_is_not_installed(store: StationStore) -> None:
    with pytest.raises(NotFound):
        store.put_certificate(certificate_for(generate_private_key(KeyAlgorithm.SECP256R1)))


def test_the_new_password_is_tried_first_and_the_old_one_kept_until_it_worked(store: StationStore) -> None:
    old, new = b"0123456789abcdef", b"\x00\xff" * 8
    store.set_password(old)
    store.offer_password(new)
    assert store.passwords() == (new, old)
    assert store.password_worked(new)
    assert store.passwords() == (new,)


def test_the_old_password_that_worked_again_ends_the_change(store: StationStore) -> None:
    store.set_password(b"0123456789abcdef")
    store.offer_password(b"fedcba9876543210")
    assert not store.password_worked(b"0123456789abcdef")
    assert store.passwords() == (b"0123456789abcdef",)


def test_a_store_belongs_to_one_station(store: StationStore) -> None:
    with pytest.raises(StateError, match="CS1"):
        StationStore(store.folder).begin("CS2", "SN2", {})


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"schema_version": 99}', b'{"schema_version": 1}'])
def test_a_damaged_index_is_one_clear_error(store: StationStore, content: bytes) -> None:
    (store.folder / "station.json").write_bytes(content)
    with pytest.raises(InputError, match=r"station\.json"):
        StationStore(store.folder)


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_trust_file_without_certificates_is_refused(store: StationStore, content: bytes) -> None:
    with pytest.raises(InputError):
        store.set_trust(content)
    assert store.trust() == ()


def test_the_event_queue_is_bounded_and_knows_repetitions(store: StationStore) -> None:
    for _ in range(3):
        store.queue_event(QueuedEvent("InvalidCsmsCertificate", NOW, "same"))
    assert len(store.state.events) == 1
    # As many as were queued before: filling it one by one costs a disk flush each.
    full = tuple(QueuedEvent("InvalidMessages", NOW, str(index)) for index in range(200))
    store._save(replace(store.state, events=full))
    store.queue_event(QueuedEvent("InvalidMessages", NOW, "newest"))
    assert len(store.state.events) == 200
    assert [store.state.events[0].tech_info, store.state.events[-1].tech_info] == ["1", "newest"]


def test_the_profile_is_never_lowered(store: StationStore) -> None:
    store.set_profile(3)
    store.set_profile(2)
    assert store.state.security_profile == 3
