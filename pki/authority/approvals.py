"""The four-eyes rule: which acts need approvals, what an approver signs, and whether what was brought is enough.

An approval is a signature over the digest of a request with the approver's registered key. Names of operating-system
users are recorded with the act and prove nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from chargepki.pki import keys
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.files import read_limited
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.signer import Signer

__all__ = [
    "ACTS",
    "MOST_APPROVALS",
    "Approval",
    "ApprovalRequest",
    "ApprovalSettings",
    "evidence_of",
    "load_approval_settings",
    "sign_approval",
    "verified_approvals",
]

ACTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ca.create": "create a CA, or a hierarchy of them",
        "ca.rollover": "make the next generation of a CA",
        "ca.cross-sign": "certify one root by another",
        "ca.sign-request": "certify the CA of another workspace",
        "ca.accept": "activate a CA that another workspace certified",
        "ca.import": "take over an existing CA with its key",
        "ca.revoke": "revoke the certificate of a CA, or put it on hold",
        "ca.release": "take the certificate of a CA off hold",
        "workspace.restore": "put a backup in the place of a workspace",
        "approver.register": "let another person approve",
        "approver.remove": "let a person approve no more",
        "approval.rule": "ask for fewer approvals",
    }
)
"""Every act that can need approvals."""
MOST_APPROVALS: Final = 10
_MAX_BYTES: Final = 1 << 16
_REQUEST: Final = "chargepki-approval-request"
_APPROVAL: Final = "chargepki-approval"


@dataclass(frozen=True, slots=True)
class ApprovalSettings:
    """How many approvals each act needs; none where it is not named."""

    needed: Mapping[str, int] = field(default_factory=dict)

    def of(self, act: str) -> int:
        """Return how many approvals *act* needs."""
        return self.needed.get(act, 0)


def load_approval_settings(path: Path) -> ApprovalSettings:
    """Read the table ``[approvals]`` of the configuration file; none is needed where there is no such file.

    Raises:
        InputError: not TOML, an unknown act, or a number out of range.
    """
    if not path.exists():
        return ApprovalSettings()
    try:
        table = tomllib.loads(read_limited(path, 1 << 20, "configuration").decode()).get("approvals", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: approvals must be a table", fix="write [approvals]")
    for act, count in table.items():
        if act not in ACTS:
            raise InputError(f"{path}: unknown act approvals.{act}", why=f"known are {', '.join(ACTS)}", fix="use one")
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_APPROVALS:
            raise InputError(f"{path}: approvals.{act} must be 0 to {MOST_APPROVALS}", fix=f'write "{act}" = 2')
    return ApprovalSettings(table)


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """One act that waits for approvals, described so that nothing else can be done with them."""

    act: str
    parameters: Mapping[str, str]
    """What decides it, and the state that it starts from: done once, the same approvals fit no second time."""
    log_id: str
    """Of the audit log: approvals for one inventory are none for another."""

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "format": _REQUEST,
            "version": 1,
            "act": self.act,
            "parameters": dict(self.parameters),
            "log_id": self.log_id,
        }

    @property
    def sha256(self) -> str:
        """Digest of the canonical document: sorted keys, no blanks, ASCII (hex)."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def statement(self, valid_until: datetime) -> bytes:
        """Return the octets that an approver signs: one line, so that any tool can sign it."""
        return f"chargepki approval v1 {self.act} {self.sha256} {_time(valid_until)}\n".encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> ApprovalRequest:
        """Read a file.

        Raises:
            InputError: it is none.
        """
        document = _load(data, _REQUEST, {"act", "parameters", "log_id"})
        act, parameters, log_id = document["act"], document["parameters"], document["log_id"]
        is_sound = isinstance(parameters, dict) and all(isinstance(each, str) for each in parameters.values())
        if act not in ACTS or not is_sound or not isinstance(log_id, str):
            raise InputError("the request is malformed", fix="have it written anew with --request-approval")
        return cls(act, parameters, log_id)


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's approval of one request."""

    request_sha256: str
    approver: str
    valid_until: datetime
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "format": _APPROVAL,
            "version": 1,
            "request_sha256": self.request_sha256,
            "approver": self.approver,
            "valid_until": _time(self.valid_until),
            "signature": base64.b64encode(self.signature).decode("ascii"),
        }

    @classmethod
    def parse(cls, data: bytes) -> Approval:
        """Read a file.

        Raises:
            InputError: it is none.
        """
        document = _load(data, _APPROVAL, {"request_sha256", "approver", "valid_until", "signature"})
        try:
            until = datetime.strptime(document["valid_until"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            signature = base64.b64decode(document["signature"], validate=True)
            return cls(str(document["request_sha256"]), str(document["approver"]), until, signature)
        except (TypeError, ValueError, binascii.Error) as error:
            raise InputError("the approval is malformed", why=str(error), fix="have it signed anew") from error


def sign_approval(request: ApprovalRequest, approver: str, signer: Signer, *, valid_until: datetime) -> Approval:
    """Return the approval of *request* by the holder of *signer*; needs no inventory."""
    signature = signer.sign(request.statement(valid_until))
    return Approval(request.sha256, approver, valid_until, signature)


def verified_approvals(
    reads: Reads, request: ApprovalRequest, approvals: Sequence[Approval], *, now: datetime
) -> dict[str, Approval]:
    """Return the approvals of *request* that hold, by the digest of the key: one key under two names is one person.

    Raises:
        PolicyRefusal: one does not hold: a wrong one is never passed over in silence.
    """
    held = {}
    for approval in approvals:
        approver = reads.find_approver(approval.approver)
        if approver is None:
            raise _refused(approval, "nobody of that name is registered", "register the key first")
        if not approver.active:
            raise _refused(approval, "that person may not approve any more", "have somebody else approve it")
        if approval.request_sha256 != request.sha256:
            raise _refused(approval, "it is for another request", "have this very request approved")
        if approval.valid_until < now:
            raise _refused(approval, f"it ended on {_time(approval.valid_until)}", "have it signed anew")
        key = keys.load_public_key(approver.spki)
        algorithm = keys.signature_algorithm(keys.algorithm_of(key)).der
        if not keys.verify(key, approval.signature, request.statement(approval.valid_until), algorithm):
            raise _refused(approval, "the registered key did not sign it", "have it signed anew")
        held[approver.spki_sha256] = approval
    return held


def evidence_of(held: Mapping[str, Approval]) -> list[dict[str, str]]:
    """Return what the audit log keeps of *held* (`verified_approvals`): enough to verify it again."""
    return [
        {
            "approver": each.approver,
            "key": digest,
            "valid_until": _time(each.valid_until),
            "signature": base64.b64encode(each.signature).decode("ascii"),
        }
        for digest, each in sorted(held.items())
    ]


def _refused(approval: Approval, why: str, fix: str) -> PolicyRefusal:
    return PolicyRefusal(f"the approval of {approval.approver[:80]} does not count", why=why, fix=fix)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _load(data: bytes, kind: str, fields: set[str]) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8")) if len(data) <= _MAX_BYTES else None
    except (ValueError, RecursionError) as error:
        raise InputError("this is no JSON", why=type(error).__name__, fix=f"give a file of format {kind}") from error
    if not isinstance(document, dict) or document.get("format") != kind or document.get("version") != 1:
        raise InputError(f"this is no {kind} file", fix="--request-approval writes requests, `approval sign` approvals")
    if set(document) != {"format", "version", *fields}:
        raise InputError("the file lacks a field, or has one too many", fix="get it anew")
    return document
