"""The catalogue of firmware releases: add, approve by a second person's signature, withdraw; all audited."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chargepki.ocpp_security.firmware import VerifiedFirmware
from chargepki.ocpp_security.firmware_approval import approval_statement, check_approval, release_digest
from chargepki.ocpp_security.firmware_version import version_key
from chargepki.pki import files, keys
from chargepki.pki.authority.four_eyes import FourEyes
from chargepki.pki.errors import Conflict, InputError, NotFound, StateError, UnavailableError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.firmware_records import (
    FirmwareApprovalRecord,
    FirmwareApproverRecord,
    FirmwareReleaseRecord,
    FirmwareReleaseState,
)
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import Actor
from chargepki.pki.signer import Signer

__all__ = [
    "FirmwareCatalogue",
    "ReleaseOffer",
    "check_location",
    "image_path",
]

MAX_LOCATION: Final = 512
"""Longest ``firmware.location`` that every version takes; 2.1 alone has room for 2,000."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
_MAX_WORDS: Final = 50
"""Longest vendor name and model that a BootNotification can tell (2.x; 20 in 1.6)."""
_MAX_NOTES: Final = 4000
_SCHEMES: Final = ("https", "http", "ftps", "ftp", "sftp")


@dataclass(frozen=True, slots=True)
class ReleaseOffer:
    """What is said of an image when it is added; the rest comes from having verified it. Empty words mean any."""

    name: str
    vendor: str
    model: str
    version: str
    hardware: str = ""
    notes: str = ""
    location: str | None = None


def image_path(home: Path, record: FirmwareReleaseRecord) -> Path:
    """Return where the workspace keeps the image of a release that has no location of its own."""
    return home / "firmware" / f"{record.sha256}.img"


def check_location(location: str) -> None:
    """Refuse a URL that no message has room for, or that no station can fetch.

    Raises:
        InputError: says what is wrong.
    """
    try:
        parts = urlsplit(location)
        host = parts.hostname
    except ValueError as exc:
        raise InputError("the location is no URL", why=str(exc)) from exc
    if parts.scheme not in _SCHEMES or not host or not location.isascii() or not location.isprintable():
        raise InputError(
            "the location is no URL that a station can fetch", fix=f"write it with one of {', '.join(_SCHEMES)}"
        )
    if parts.password is not None:
        raise InputError(
            "the location holds a password", why="it would stand in logs and in the inventory", fix="leave it out"
        )
    if len(location) > MAX_LOCATION:
        raise InputError(f"the location has {len(location)} characters", why=f"1.6 and 2.0.1 allow {MAX_LOCATION}")


class FirmwareCatalogue:
    """The releases of one inventory."""

    def __init__(self, inventory: Inventory, home: Path, *, actor: Actor, four_eyes: FourEyes | None = None) -> None:
        """Set up.

        Args:
            home: workspace folder, under which images are kept.
            actor: who acts, for the audit log.
            four_eyes: whether changing who may approve needs approvals; the inventory's own rule when ``None``.
        """
        self._four_eyes = four_eyes or FourEyes()
        self._inventory, self._home, self._actor = inventory, home, actor

    def add(
        self,
        offer: ReleaseOffer,
        image: Path,
        verified: VerifiedFirmware,
        *,
        signature: str,
        certificate_pem: str,
        root_der: bytes,
        quirks: Collection[str],
        now: datetime,
        keep: bool = True,
        tick: Callable[[int], None] | None = None,
    ) -> FirmwareReleaseRecord:
        """Record a release whose image has been verified, and keep a copy of the image unless it has a location.

        Args:
            verified: evidence about *image*; the copy is compared with it.
            signature: base64, as it will be sent.
            keep: copy the image; false in a rehearsal.

        Raises:
            InputError: a name, word, version or location that cannot be used.
            Conflict: the name is taken, or that version of that model has a release.
            StateError: the image changed after it was verified.
        """
        _check_offer(offer)
        record = FirmwareReleaseRecord(
            id=offer.name,
            vendor=offer.vendor,
            model=offer.model,
            hardware=offer.hardware,
            version=offer.version,
            size=verified.image.size,
            sha256=verified.image.hex,
            signature=signature,
            certificate_pem=certificate_pem,
            root_der=root_der,
            quirks=" ".join(sorted(quirks)),
            location=offer.location,
            notes=offer.notes,
            state=FirmwareReleaseState.PROPOSED,
            added_by=self._actor.name,
            added_at=now,
        )
        self._check_free(self._inventory, record)
        if offer.location is None and keep:
            # The copy first: a release on record whose image is not there could not be sent.
            self._keep(image, record, tick)

        def work(tx: Transaction) -> FirmwareReleaseRecord:
            self._check_free(tx, record)
            tx.add_release(record)
            details = {"version": record.version, "model": record.model, "quirks": record.quirks}
            tx.audit(self._actor, "firmware.add", record.id, now=now, artefact_sha256=record.sha256, details=details)
            return record

        return self._inventory.write(work)

    @staticmethod
    def _check_free(reads: Reads, record: FirmwareReleaseRecord) -> None:
        if reads.find_release(record.id) is not None:
            raise Conflict(f"there is a release {record.id} already", fix="choose another name")
        kind = (record.vendor, record.model, record.hardware, version_key(record.version))
        for other in reads.list_releases():
            if other.state is FirmwareReleaseState.WITHDRAWN:
                continue
            if kind == (other.vendor, other.model, other.hardware, version_key(other.version)):
                raise Conflict(
                    f"version {record.version} of {record.vendor} {record.model} is the release {other.id} already",
                    why="two images of one version cannot be told apart on a station",
                    fix="give the image another version, or withdraw the other release",
                )

    def _keep(self, image: Path, record: FirmwareReleaseRecord, tick: Callable[[int], None] | None) -> None:
        files.make_private_folder(self._home / "firmware")
        target = image_path(self._home, record)
        state, size = hashlib.sha256(), 0

        def chunks() -> Iterator[bytes]:
            nonlocal size
            with image.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    state.update(chunk)
                    size += len(chunk)
                    if tick is not None:
                        tick(size)
                    yield chunk
            # Inside, so that a file with another content never gets the name.
            if state.hexdigest() != record.sha256:
                raise StateError(f"{image} changed while it was added", fix="add it again")

        files.write_stream(target, chunks(), mode=0o600)

    def register_approver(self, name: str, spki: bytes, *, now: datetime) -> FirmwareApproverRecord:
        """Record somebody who may approve, with the public key (SubjectPublicKeyInfo, DER) of that person.

        Raises:
            InputError: a name that cannot be used, or a key that cannot sign.
            Conflict: the name or the key is taken.
            PolicyRefusal: it needs approvals.
        """
        _check_name(name, "an approver")
        key = keys.load_public_key(spki)
        keys.algorithm_of(key)
        spki = keys.spki_der(key)
        record = FirmwareApproverRecord(name, spki, keys.spki_sha256(spki), True, self._actor.name, now)

        def work(tx: Transaction) -> FirmwareApproverRecord:
            for other in tx.list_approvers():
                if other.spki_sha256 == record.spki_sha256:
                    raise Conflict(f"this key is that of approver {other.id}", why="a key stands for one person")
                if other.id.casefold() == name.casefold() and other.id != name:
                    raise Conflict(f"{name} is approver {other.id} in other letters", why="a person has one name")
            told = {"name": name, "key": record.spki_sha256}
            self._four_eyes.require(tx, "approver.register", told, actor=self._actor, now=now)
            tx.add_approver(record)
            tx.audit(
                self._actor, "firmware.register-approver", name, now=now, details={"spki_sha256": record.spki_sha256}
            )
            return record

        return self._inventory.write(work)

    def remove_approver(self, name: str, *, now: datetime) -> FirmwareApproverRecord:
        """Let somebody approve no more; earlier approvals stand. Idempotent.

        Raises:
            NotFound: there is no such approver.
            PolicyRefusal: it needs approvals.
        """

        def work(tx: Transaction) -> FirmwareApproverRecord:
            known = tx.find_approver(name)
            if known is None:
                raise _no_approver(name)
            if not known.active:
                return known
            told = {"name": name, "key": known.spki_sha256}
            self._four_eyes.require(tx, "approver.remove", told, actor=self._actor, now=now)
            removed = tx.remove_approver(name)
            tx.audit(self._actor, "firmware.remove-approver", name, now=now)
            return removed

        return self._inventory.write(work)

    def sign_approval(self, release: str, signer: Signer) -> bytes:
        """Return an approver's signature over the release; `approve` records it."""
        return signer.sign(approval_statement(self._inventory.get_release(release)))

    def approve(self, release: str, approver: str, signature: bytes, *, now: datetime) -> FirmwareReleaseRecord:
        """Record an approval: a signature with the approver's registered key over `approval_statement`.

        Raises:
            NotFound: no such release or approver.
            PolicyRefusal: the approver added the release, or signed the image; or the signature does not verify.
            StateError: the approver was removed, or the release withdrawn.
            Conflict: approved by this person already.
        """

        def work(tx: Transaction) -> FirmwareReleaseRecord:
            record = tx.get_release(release)
            known = tx.find_approver(approver)
            if known is None:
                raise _no_approver(approver)
            if not known.active:
                raise StateError(f"{approver} may not approve any more", fix="let another approver do it")
            check_approval(record, known, signature)
            digest = release_digest(record)
            approved = tx.add_approval(FirmwareApprovalRecord(release, approver, digest, signature, now))
            tx.audit(
                self._actor,
                "firmware.approve",
                release,
                now=now,
                artefact_sha256=record.sha256,
                details={"approver": approver, "key": known.spki_sha256, "digest": digest},
            )
            return approved

        return self._inventory.write(work)

    def withdraw(self, release: str, *, reason: str, now: datetime) -> FirmwareReleaseRecord:
        """Withdraw a release for good; one that is withdrawn stays as it is.

        Raises:
            NotFound: there is none.
        """

        def work(tx: Transaction) -> FirmwareReleaseRecord:
            known = tx.get_release(release)
            if known.state is FirmwareReleaseState.WITHDRAWN:
                return known
            withdrawn = tx.withdraw_release(release, reason=reason[:_MAX_NOTES], now=now)
            tx.audit(self._actor, "firmware.withdraw", release, now=now, details={"reason": reason[:_MAX_NOTES]})
            return withdrawn

        return self._inventory.write(work)

    def check_image(self, record: FirmwareReleaseRecord) -> Path:
        """Return the path of a release's own image, which is there and has its size.

        Raises:
            UnavailableError: it is missing or has another size.
        """
        path = image_path(self._home, record)
        try:
            size = path.stat().st_size
        except OSError as exc:
            raise UnavailableError(
                f"the image of {record.id} is not in the workspace",
                why=f"{path}: {exc.strerror}",
                fix="restore it from the backup, or add the release again under another name",
            ) from exc
        if size != record.size:
            raise UnavailableError(f"the image of {record.id} has {size} bytes", why=f"{record.size} were added")
        return path


def _no_approver(name: str) -> NotFound:
    return NotFound(f"there is no approver {name}", fix="see them with: chargepki firmware approvers")


def _check_name(name: str, what: str) -> None:
    if not _NAME.match(name):
        raise InputError(f"{name[:80]!r} cannot name {what}", fix="use up to 64 letters, digits, dot, _ and -")


def _check_offer(offer: ReleaseOffer) -> None:
    _check_name(offer.name, "a release")
    version_key(offer.version)
    for label, text in (("vendor", offer.vendor), ("model", offer.model), ("hardware", offer.hardware)):
        if len(text) > _MAX_WORDS or not text.isprintable():
            raise InputError(f"{text[:60]!r} cannot be the {label}", why=f"at most {_MAX_WORDS} printable characters")
    if len(offer.notes) > _MAX_NOTES:
        raise InputError(f"the notes have {len(offer.notes)} characters", why=f"there is room for {_MAX_NOTES}")
    if offer.location is not None:
        check_location(offer.location)
