"""Why a path is refused: the certificate, its position, the clause, the cure, and the search that led there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.errors import ChainError, ChargePkiError, RevocationError

__all__ = ["PathRefusal", "RejectedPath", "RevocationRefusal", "SearchRecord", "path_to_json", "place", "refuse"]


class PathRefusal(ChainError):
    """A leaf without a valid path. `str()` and the three texts are for people, the attributes for programs."""

    def __init__(
        self,
        what: str,
        *,
        rule: str,
        clause: str = "",
        why: str = "",
        fix: str = "",
        certificate: str = "",
        position: int | None = None,
    ) -> None:
        # Not super(): the next class of `RevocationRefusal` is `RevocationError`, which asks for more.
        ChargePkiError.__init__(self, what, why=f"{why} ({clause})" if clause and why else why or clause, fix=fix)
        self.rule = rule
        """Stable short name of the rule broken."""
        self.clause = clause
        self.certificate = certificate
        """Subject and serial number of the certificate at fault; empty when none is."""
        self.position = position
        """0 is the leaf; ``None`` when no certificate is at fault."""
        self.search = SearchRecord()
        """The whole search; filled in when the error leaves `verify_chain`."""

    def to_json(self) -> dict[str, Any]:
        """Return the refusal without its search."""
        return {
            "rule": self.rule,
            "what": self.what,
            "why": self.why,
            "clause": self.clause,
            "fix": self.fix,
            "certificate": self.certificate,
            "position": self.position,
        }


class RevocationRefusal(PathRefusal, RevocationError):
    """A certificate of the path is revoked, or its status unknown or stale: `status` says which."""

    code = "revocation"

    def __init__(
        self, what: str, *, status: str, clause: str, why: str, fix: str, certificate: str, position: int
    ) -> None:
        PathRefusal.__init__(
            self, what, rule=status, clause=clause, why=why, fix=fix, certificate=certificate, position=position
        )
        self.status = status


@dataclass(frozen=True, slots=True)
class RejectedPath:
    """One candidate path and the rule that it broke; a dead end breaks ``no-issuer``."""

    path: tuple[PathCertificate, ...]
    refusal: PathRefusal

    def to_json(self) -> dict[str, Any]:
        """Return the path, leaf first, and the refusal."""
        return {"path": path_to_json(self.path), "refusal": self.refusal.to_json()}


@dataclass(slots=True)
class SearchRecord:
    """What was tried."""

    candidates: int = 0
    """Distinct certificates to choose from, anchors included."""
    signatures: int = 0
    """Signature checks made, those of revocation lists and responses included."""
    steps: int = 0
    rejected: list[RejectedPath] = field(default_factory=list)
    """At most `MAX_RECORDED`; the first is what a refusal speaks of."""
    omitted: int = 0
    """Rejected paths beyond those."""
    unusable: tuple[str, ...] = ()
    """Certificates, lists and responses that could not be read, and why."""

    MAX_RECORDED: ClassVar[int] = 64

    def reject(self, path: Sequence[PathCertificate], refusal: PathRefusal) -> None:
        """Note one candidate path."""
        if len(self.rejected) < self.MAX_RECORDED:
            self.rejected.append(RejectedPath(tuple(path), refusal))
        else:
            self.omitted += 1

    def to_json(self) -> dict[str, Any]:
        """Return everything, for ``--json``."""
        return {
            "candidates": self.candidates,
            "signatures": self.signatures,
            "steps": self.steps,
            "rejected": [each.to_json() for each in self.rejected],
            "omitted": self.omitted,
            "unusable": list(self.unusable),
        }


def path_to_json(path: Sequence[PathCertificate]) -> list[dict[str, Any]]:
    """Return position, name, serial (hex) and fingerprint of each certificate, leaf first."""
    return [
        {
            "position": position,
            "certificate": each.label,
            "serial": f"{each.serial:x}",
            "sha256": each.sha256,
            "anchor": each.is_anchor,
        }
        for position, each in enumerate(path)
    ]


def refuse(
    certificate: PathCertificate, position: int, what: str, *, rule: str, clause: str, why: str, fix: str
) -> PathRefusal:
    """Return (not raise) the refusal that blames *certificate* at *position*."""
    return PathRefusal(
        f"{what}: {certificate.label} ({place(certificate, position)})",
        rule=rule,
        clause=clause,
        why=why,
        fix=fix,
        certificate=certificate.label,
        position=position,
    )


def place(certificate: PathCertificate, position: int) -> str:
    """Return how messages name a position."""
    return "leaf" if position == 0 else f"position {position}{', anchor' if certificate.is_anchor else ''}"
