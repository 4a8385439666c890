"""A second person's approval of a release: what is signed, by whom, and whether it holds for what is on record."""

from __future__ import annotations

import hashlib
import json

from chargepki.ocpp_security.firmware_certificate import parse_signing_certificate
from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal
from chargepki.pki import keys
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.inventory.firmware_records import (
    FirmwareApprovalRecord,
    FirmwareApproverRecord,
    FirmwareReleaseRecord,
)
from chargepki.pki.inventory.reads import Reads

__all__ = ["approval_statement", "check_approval", "check_second_person", "find_approval", "release_digest"]


def release_digest(record: FirmwareReleaseRecord) -> str:
    """Return the SHA-256 (hex) of what an approval covers: everything that decides what a station is told.

    It is taken over canonical JSON (sorted keys, no blanks, ASCII) of the fields below; the root as its SHA-256.
    """
    covered = {
        name: getattr(record, name)
        for name in (
            "id", "vendor", "model", "hardware", "version", "size", "sha256", "signature", "certificate_pem", "quirks",
            "location",
        )
    }  # fmt: skip
    covered["root_sha256"] = hashlib.sha256(record.root_der).hexdigest()
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def approval_statement(record: FirmwareReleaseRecord) -> bytes:
    """Return the octets that an approver signs: one line of text, so that any tool can sign it.

    The first words keep such a signature from meaning anything elsewhere.
    """
    return f"chargepki firmware approval v1 {record.id} {release_digest(record)}\n".encode("ascii")


def check_second_person(record: FirmwareReleaseRecord, approver: FirmwareApproverRecord) -> None:
    """Refuse an approver who added the release, or whose key signed its image.

    Raises:
        PolicyRefusal: that is no second person.
    """
    # Nobody becomes a second person by writing a name in capitals.
    if approver.id.casefold() == record.added_by.casefold():
        raise PolicyRefusal(
            f"{approver.id} added {record.id} and cannot approve it",
            why="a release needs a second person",
            fix="let another registered approver do it",
        )
    leaf = PathCertificate(parse_signing_certificate(record.certificate_pem)[0])
    key = leaf.load_key()
    if key is not None and keys.spki_sha256(keys.spki_der(key)) == approver.spki_sha256:
        raise PolicyRefusal(
            f"the key of {approver.id} signed the image of {record.id}",
            why="who signs an image cannot be the second person",
            fix="let another registered approver do it",
        )


def check_approval(record: FirmwareReleaseRecord, approver: FirmwareApproverRecord, signature: bytes) -> None:
    """Refuse what is no signature of a second person over the release as it is on record.

    Raises:
        PolicyRefusal: not a second person, or the signature does not verify with the registered key.
    """
    check_second_person(record, approver)
    key = keys.load_public_key(approver.spki)
    algorithm = keys.signature_algorithm(keys.algorithm_of(key))
    if not keys.verify(key, signature, approval_statement(record), algorithm.der):
        raise PolicyRefusal(
            f"this is no approval of {record.id} by {approver.id}",
            why=f"the signature does not verify with the registered key ({algorithm.name})",
            fix=f"sign what this prints: chargepki firmware show {record.id} --statement",
        )


def find_approval(reads: Reads, record: FirmwareReleaseRecord) -> FirmwareApprovalRecord | None:
    """Return an approval that holds for the release as it is on record now; ``None`` when none does.

    The row's state says that it was approved once. Whoever can write to the database can write that, and another
    location or image too; they cannot make the signature. That an approver was removed since changes nothing.
    """
    for approval in reads.list_approvals(record.id):
        approver = reads.find_approver(approval.approver)
        if approver is None:
            continue
        try:
            check_approval(record, approver, approval.signature)
        except (PolicyRefusal, FirmwareRefusal, InputError):
            continue
        return approval
    return None
