"""Where relying parties find lists and CA certificates: as files below a folder, and by the path of their URL."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from chargepki.pki import files
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CrlDeltaRecord, CrlRecord

__all__ = ["Artefact", "PublishFolder", "find_artefact", "published_paths"]

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


def find_artefact(inventory: Inventory, path: str, now: datetime | None) -> Artefact | None:
    """Return what the URL path *path* answers; ``None`` when there is nothing, or only a list whose time is over.

    Args:
        path: ``/crl/NAME@N.crl``, ``/crl/NAME@N/SHARD.crl``, ``/crl/NAME@N-delta.crl`` or ``/ca/NAME@N.cer``.
        now: ``None`` also returns a list whose time is over, to a caller that looks at `Artefact.next_update`.

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
    if record is None or not record.der or (now is not None and now > record.next_update):
        return None
    return Artefact(record.der, _CRL_TYPE, record.this_update, record.next_update)


def published_paths(inventory: Inventory, now: datetime) -> list[str]:
    """Return the URL paths at which there is something now, of every CA that has not expired."""
    paths: list[str] = []
    for ca in inventory.list_cas():
        if ca.certificate_der is None or ca.not_after is None or now > ca.not_after:
            continue
        paths.append(f"/ca/{ca.id}.cer")
        for shard, state in inventory.list_states(ca.id).items():
            if now <= state.next_update:
                paths.append(f"/crl/{ca.id}.crl" if shard is None else f"/crl/{ca.id}/{shard}.crl")
        if ca.crl_delta_hours and inventory.delta_state(ca.id) is not None:
            paths.append(f"/crl/{ca.id}-delta.crl")
    return paths


class PublishFolder:
    """A folder that a web server serves: ``crl/ID.crl``, ``crl/ID/SHARD.crl``, ``crl/ID-delta.crl``, ``ca/ID.cer``.

    Remembers which bytes it saw in which file, so that the next look costs a `stat` each.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int, int, str]] = {}

    def update(
        self, inventory: Inventory, ca_id: str, now: datetime, fresh: Sequence[CrlRecord | CrlDeltaRecord] = ()
    ) -> list[Path]:
        """Bring the files of a CA to what the inventory holds: its newest lists and its certificate.

        A file that has the newest bytes already is left alone. A list whose time is over is removed: a web server
        would go on serving it. Two processes may publish at once: each writes what the inventory holds last, under
        one lock, so a slower one cannot put an older list back.

        Args:
            fresh: lists that were recorded just now, so that they need not be read again.

        Returns:
            The files that were written.

        Raises:
            UnavailableError: the folder cannot be written; the lists are recorded, so running it again is enough.
        """
        for part in ("crl", "ca"):
            files.make_folder(self._folder / part)
        lists = {record.sha256: record.der for record in fresh}
        written: list[Path] = []
        for name, newest in _newest(inventory, ca_id).items():
            path = self._folder / name
            if newest.is_over(now) or newest.sha256 != self._digest(path):
                written += self._replace(inventory, ca_id, name, now, lists)
        if self._digest(self._folder / "crl" / f"{ca_id}-delta.crl"):
            # Deltas may have been switched off.
            written += self._replace(inventory, ca_id, f"crl/{ca_id}-delta.crl", now, lists)
        return written

    def _replace(
        self, inventory: Inventory, ca_id: str, name: str, now: datetime, lists: Mapping[str, bytes]
    ) -> list[Path]:
        """Write or remove one file under the lock, by what the inventory holds now."""
        path = self._folder / name
        with files.locked(self._folder / ".publish.lock"):
            newest = _newest(inventory, ca_id).get(name)
            if newest is None or newest.is_over(now):
                files.remove_durable(path)
                return []
            if newest.sha256 == self._digest(path):
                return []
            data = lists.get(newest.sha256)
            if data is None:
                found = find_artefact(inventory, f"/{name}", now)
                data = found.data if found is not None else b""
            if not data:
                return []
            files.make_folder(path.parent)
            files.write_durable(path, data)
            return [path]

    def _digest(self, path: Path) -> str:
        """Return the SHA-256 of what stands at *path* (hex); empty when nothing can be read there."""
        try:
            status = path.stat()
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            seen = self._seen.get(path)
            if seen is not None and seen[:3] == stamp:
                return seen[3]
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            # Whatever it is that stands there, or nothing: writing says what is wrong with it.
            return ""
        self._seen[path] = *stamp, digest
        return digest


class _Newest(NamedTuple):
    sha256: str
    until: datetime | None

    def is_over(self, now: datetime) -> bool:
        return self.until is not None and now > self.until


def _newest(inventory: Inventory, ca_id: str) -> dict[str, _Newest]:
    """Return by file name which bytes belong into it, and until when."""
    ca = inventory.get_ca(ca_id)
    found: dict[str, _Newest] = {}
    if ca.certificate_der is not None:
        found[f"ca/{ca.id}.cer"] = _Newest(hashlib.sha256(ca.certificate_der).hexdigest(), None)
    for shard, state in inventory.list_states(ca.id).items():
        name = f"crl/{ca.id}.crl" if shard is None else f"crl/{ca.id}/{shard}.crl"
        found[name] = _Newest(state.sha256, state.next_update)
    delta = inventory.delta_state(ca.id) if ca.crl_delta_hours is not None else None
    if delta is not None:
        found[f"crl/{ca.id}-delta.crl"] = _Newest(delta.sha256, delta.next_update)
    return found
