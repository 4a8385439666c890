"""Choose the chain that a station can verify, by the roots that it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from chargepki.ocpp_security.estate import Recogniser, StationTrust
from chargepki.ocpp_security.sign_certificate import CertificateUse
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.authority.cross import CROSS_PROFILES
from chargepki.pki.der import to_pem
from chargepki.pki.inventory.reads import Reads
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.questions import list_authorities
from chargepki.pki.questions.paths import PathFinder

__all__ = ["chain_for_station", "root_use_of", "station_anchors"]


def root_use_of(use: CertificateUse) -> RootUse:
    """Return under which roots a station verifies its own certificate of *use* (A02, M03 to M06)."""
    return RootUse.CSMS if use is CertificateUse.CHARGING_STATION else RootUse.V2G


def station_anchors(reads: Reads, station: str, use: RootUse) -> tuple[bytes, ...] | None:
    """Return the roots (DER) that *station* holds for *use* and that are known here; ``None`` when nobody asked it.

    What it listed counts; for a use that it was never asked about, what was installed from here.
    """
    trust = StationTrust(station, reads.list_station_roots(station), reads.list_root_reports(station))
    if not trust.installed and not trust.reports:
        return None
    recogniser = Recogniser(reads)
    found = trust.uses(recogniser).get(use.value)
    if found is None:
        return None
    digests, _ = found
    known = {hashlib.sha256(each.der).hexdigest(): each.der for each in recogniser.known}
    return tuple(known[digest] for digest in sorted(digests) if digest in known)


def chain_for_station(
    reads: Reads,
    chain: Sequence[bytes],
    *,
    ca_id: str,
    station: str,
    use: RootUse,
    now: datetime,
    max_characters: int | None = None,
) -> tuple[bytes, ...]:
    """Return *chain* with what is above the leaf exchanged for a path to a root that *station* holds.

    It stays as it is where the station's roots are not known, where it leads to one of them already, and where no
    other path does.

    Args:
        chain: DER, leaf first, without the root.
        ca_id: the generation that issued the leaf.
        max_characters: of PEM that the station takes; a longer path is none.
    """
    usual = tuple(chain)
    if not _has_crosses(reads):
        return usual
    anchors = station_anchors(reads, station, use)
    if not anchors:
        return usual
    for path in PathFinder(list_authorities(reads)).paths(ca_id, anchors, now):
        chosen = (usual[0], *path.certificates)
        if max_characters is None or sum(len(to_pem("CERTIFICATE", der)) for der in chosen) <= max_characters:
            return chosen
    return usual


def _has_crosses(reads: Reads) -> bool:
    """Whether there is any other path than the one of issuers: most installations have none, and need not search."""
    for profile in CROSS_PROFILES:
        if any(True for _ in reads.list_certificates(profile=profile, state=CertificateState.ISSUED, limit=1)):
            return True
    return False
