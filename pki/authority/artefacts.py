"""Where relying parties find lists and CA certificates: as files below a folder, and by the path of their URL."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from chargepki.pki import files
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CrlDeltaRecord, CrlRecord

__all__ = ["Artefact", "find_artefact", "publish_files"]

_CRL_TYPE: Final = "application/pkix-crl"
_CERTIFICATE_TYPE: Final = "application/pkix-cert"
_CA: Final = r"(?P<ca>[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[1-9][0-9]{0,8})"
_FULL: Final = re.compile(rf"/crl/{_CA}\.crl", re.ASCII)
_SHARD: Final = re.compile(rf"/crl/{_CA}/(?P<shard>[1-9][0-9]{{0,8}})\.crl", re.ASCII)
_DELTA: Final = re.compile(rf"/crl/{_CA}-delta\.crl", re.ASCII)
_CERTIFICATE: Final = re.compile(rf"/ca/{_CA}\.cer", re.ASCII)


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a published URL answers (DER)."""

    data: bytes
    media_type: str
    this_update: datetime | None = None
    next_update: datetime | None = None
    """Nobody may be given it after this instant; ``None`` for a certificate."""


def find_artefact(inventory: Inventory, path: str, now: datetime) -> Artefact | None:
    """Return what the URL path *path* answers; ``None`` when there is nothing, or only a list whose time is over.

    Args:
        path: ``/crl/NAME@N.crl``, ``/crl/NAME@N/SHARD.crl``, ``/crl/NAME@N-delta.crl`` or ``/ca/NAME@N.cer``.

    Clause: RFC 5280 4.2.1.13 and 4.2.2.1 (HTTP, DER); RFC 2585 4.1, 4.2 (media types).
    """
    if match := _CERTIFICATE.fullmatch(path):
        ca = inventory.find_ca(match["ca"])
        found = ca.certificate_der if ca is not None else None
        return Artefact(found, _CERTIFICATE_TYPE) if found is not None else None
    record: CrlRecord | CrlDeltaRecord | None = None
    if match := _FULL.fullmatch(path):
        record = inventory.latest_crl(match["ca"])
    elif match := _SHARD.fullmatch(path):
        record = inventory.latest_shard_crl(match["ca"], int(match["shard"]))
    elif match := _DELTA.fullmatch(path):
        ca = inventory.find_ca(match["ca"])
        record = inventory.latest_delta_crl(match["ca"]) if ca is not None and ca.crl_delta_hours else None
    if record is None or not record.der or now > record.next_update:
        return None
    return Artefact(record.der, _CRL_TYPE, record.this_update, record.next_update)


def publish_files(inventory: Inventory, ca_id: str, folder: Path, now: datetime) -> list[Path]:
    """Write the newest lists and the certificate of a CA below *folder*, where their URLs have them.

    A file that has the newest bytes already is left alone. A list whose time is over is removed: a web server would
    go on serving it. Two processes may publish at once: each writes what the inventory holds last, under one lock, so
    a slower one cannot put an older list back.

    Returns:
        The files that were written.

    Raises:
        UnavailableError: the folder cannot be written; the lists are recorded, so running it again is enough.
    """
    written: list[Path] = []
    ca = inventory.get_ca(ca_id)
    for part in ("crl", "ca"):
        files.make_folder(folder / part)
    for path, find, read in _wanted(inventory, ca, folder):
        found = find()
        if found is not None and not found.is_over(now) and found.sha256 == _digest(path):
            continue
        with files.locked(folder / ".publish.lock"):
            # Asked again under the lock: another process may just have put a newer list there.
            found = find()
            if found is None or found.is_over(now):
                files.remove_durable(path)
            elif data := read():
                files.make_folder(path.parent)
                files.write_durable(path, data)
                written.append(path)
    return written


class _Newest(NamedTuple):
    sha256: str
    until: datetime | None

    def is_over(self, now: datetime) -> bool:
        return self.until is not None and now > self.until


_Wanted = tuple[Path, Callable[[], _Newest | None], Callable[[], bytes | None]]


def _wanted(inventory: Inventory, ca: CaRecord, folder: Path) -> Iterator[_Wanted]:
    """Yield each file with what says which bytes belong into it, if any, and what reads these."""
    if ca.certificate_der is not None:
        certificate = _Newest(hashlib.sha256(ca.certificate_der).hexdigest(), None)
        yield folder / "ca" / f"{ca.id}.cer", lambda: certificate, lambda: ca.certificate_der

    def state(shard: int | None) -> _Newest | None:
        found = inventory.list_states(ca.id).get(shard)
        return _Newest(found.sha256, found.next_update) if found is not None else None

    def delta() -> _Newest | None:
        found = inventory.delta_state(ca.id) if inventory.get_ca(ca.id).crl_delta_hours is not None else None
        return _Newest(found.sha256, found.next_update) if found is not None else None

    yield folder / "crl" / f"{ca.id}.crl", partial(state, None), lambda: _der(inventory.latest_crl(ca.id))
    for shard in sorted(shard for shard in inventory.list_states(ca.id) if shard is not None):
        path = folder / "crl" / ca.id / f"{shard}.crl"
        yield path, partial(state, shard), partial(_read_shard, inventory, ca.id, shard)
    yield folder / "crl" / f"{ca.id}-delta.crl", delta, lambda: _der(inventory.latest_delta_crl(ca.id))


def _der(record: CrlRecord | CrlDeltaRecord | None) -> bytes | None:
    return record.der if record is not None else None


def _read_shard(inventory: Inventory, ca_id: str, shard: int) -> bytes | None:
    return _der(inventory.latest_shard_crl(ca_id, shard))


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        # Whatever it is that stands there, or nothing: writing says what is wrong with it.
        return ""
