"""Write a chain in the order in which protocols send it."""

from __future__ import annotations

from collections.abc import Sequence

from chargepki.pki import oids
from chargepki.pki.doctor.examine import ChainReport, Diagnosis
from chargepki.pki.errors import NotFound, StateError
from chargepki.pki.pem import to_pem

__all__ = ["choose_chain", "corrected_bundle"]


def choose_chain(diagnosis: Diagnosis, wanted: str | None) -> ChainReport:
    """Return the chain whose leaf *wanted* names: by name in the report, CN, serial number or fingerprint (hex).

    Args:
        wanted: ``None`` when there is only one leaf.

    Raises:
        NotFound: there is no such leaf, or none at all.
        StateError: there are several.
    """
    chains = [each for each in diagnosis.chains if not each.chain.leaf.view.is_ca]
    if wanted is not None:
        chains = [each for each in chains if wanted in _names(each)] or _at(chains, wanted)
    if not chains:
        raise NotFound(
            "there is no leaf to write the chain of" if wanted is None else f"no leaf is called {wanted[:100]}",
            why="a leaf is a certificate that is no CA",
            fix="see what there is with: chargepki doctor PATH",
        )
    if len(chains) > 1:
        listed = ", ".join(each.chain.leaf.name for each in chains[:8])
        raise StateError(
            f"there are {len(chains)} leaves, and a bundle is for one",
            why=f"they are {listed}{'' if len(chains) <= 8 else ' and others'}",
            fix="name one with --leaf: its name in the report, CN, serial number or SHA-256",
        )
    return chains[0]


def _names(report: ChainReport) -> set[str]:
    leaf = report.chain.leaf
    serial = f"{leaf.view.serial:x}"
    return {*leaf.names, *leaf.view.subject_values(oids.COMMON_NAME), serial, serial.upper(), leaf.sha256}


def _at(chains: Sequence[ChainReport], wanted: str) -> list[ChainReport]:
    """Return those whose leaf lies in the file *wanted*."""
    return [each for each in chains if any(name.partition("#")[0] == wanted for name in each.chain.leaf.names)]


def corrected_bundle(report: ChainReport, *, with_root: bool = False) -> str:
    """Return PEM: leaf first, each issuer after what it issued, LF, nothing between; never a key.

    Args:
        with_root: also the root, if it is here; only private environments of ISO 15118-2 send it.
    """
    nodes = report.chain.path if with_root else report.chain.to_send
    return "".join([to_pem("CERTIFICATE", node.der) for node in nodes])
