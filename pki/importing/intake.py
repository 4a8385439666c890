"""Find the certificates in files, folders, archives and databases; count what is none; never stop at a bad one."""

from __future__ import annotations

import binascii
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from chargepki.pki import files
from chargepki.pki.doctor.intake import Heap, HeapFile, Limits
from chargepki.pki.doctor.keyring import KeyRing
from chargepki.pki.errors import ChargePkiError, InputError, NotFound, UnavailableError, printable
from chargepki.pki.findings import Severity
from chargepki.pki.importing.archives import Allowance, is_archive, members
from chargepki.pki.importing.facts import read_facts
from chargepki.pki.importing.layouts import role_of
from chargepki.pki.importing.openssl_index import IndexRow, is_index, parse_index
from chargepki.pki.inventory.cfssl import is_sqlite, read_cfssl
from chargepki.pki.inventory.import_records import ForeignRevocation, FoundCertificate
from chargepki.pki.lint.sniff import ObjectKind
from chargepki.pki.pem import PemBlock

__all__ = ["Intake", "Problem"]

_MAX_FILE: Final = 16 << 20
_MOST_PROBLEMS: Final = 1000
_MOST_SEALED: Final = 10_000
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n)+)-----END CERTIFICATE-----[ \t]*(?:\r?\n)*"
)
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_DUMP: Final = b'"chargepki/station-dump"'
_CHUNK: Final = 4 << 20
_MAX_PLACE: Final = 500
_COMPRESSED: Final = re.compile(r"\.(gz|bz2|xz)\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be taken in."""

    place: str
    reason: str
    is_unavailable: bool = False
    """It could not be opened; otherwise it could not be understood."""


class _KeyCount(KeyRing):
    """Counts private keys, and opens none."""

    def add(self, name: str, der: bytes, block: PemBlock | None) -> None:
        """Count one."""
        self._opened += 1

    def add_opened(self, name: str, pkcs8: bytes | None, closed: str) -> None:
        """Count one."""
        self._opened += 1

    @property
    def count(self) -> int:
        """How many there were."""
        return self._opened


@dataclass(slots=True)
class Intake:
    """Reads what is named, and remembers what was no certificate.

    Args:
        passphrases: called when something encrypted is met: UTF-8, tried in turn.
    """

    passphrases: Callable[[], Sequence[bytes]] = tuple
    files: int = 0
    private_keys: int = 0
    """Seen and left where they are: a private key is never imported."""
    passed_over: int = 0
    """Files without a certificate."""
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    """The first thousand of them."""
    indexes: list[tuple[str, list[IndexRow]]] = field(default_factory=list)
    """Databases of openssl and easy-rsa: place and rows."""
    revocations: list[ForeignRevocation] = field(default_factory=list)
    """Of databases that hold the certificates as well."""
    dumps: list[tuple[str, bytes]] = field(default_factory=list)
    """What stations say is installed on them."""
    _sealed: int = 0

    def path(self, path: str) -> Iterator[FoundCertificate]:
        """Yield the certificates of a file or folder; links to folders are not followed.

        Raises:
            UnavailableError: there is none of this name.
        """
        if path == "-":
            yield from self._small(files.read_limited(path, _MAX_FILE, "standard input"), "stdin", "stdin")
            return
        whole = Path(path).absolute()
        if not whole.is_dir():
            if not whole.exists():
                raise UnavailableError(f"there is no file or folder {path}", fix="check the name")
            yield from self._file(whole)
            return
        for root, folders, names in os.walk(whole):
            folders.sort()
            for name in sorted(names):
                file = Path(root, name)
                if file.is_file():
                    yield from self._file(file)

    def endpoint(self, place: str, chain: Sequence[bytes]) -> Iterator[FoundCertificate]:
        """Yield what a server presented."""
        self.files += 1
        digest = hashlib.sha256(b"".join(chain)).hexdigest()
        for number, der in enumerate(chain, start=1):
            yield from self._certificate(der, f"{place}#{number}", digest, None)

    def problem(self, place: str, reason: str, *, is_unavailable: bool = False) -> None:
        """Note something that could not be taken in."""
        self.problem_count += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(place, printable(reason)[:500], is_unavailable))

    def _file(self, file: Path) -> Iterator[FoundCertificate]:
        place = _shown(str(file))
        try:
            if not file.is_file():  # a pipe, which can be read once
                yield from self._small(files.read_limited(str(file), _MAX_FILE, "file"), place, place)
                return
            with file.open("rb") as stream:
                head = stream.read(512)
                stream.seek(0)
                size = os.fstat(stream.fileno()).st_size
                if is_archive(head):
                    self.files += 1
                    allowance = Allowance(_MAX_FILE)
                    allowance.begin(size)
                    yield from self._archive(stream, place, allowance, 1)
                elif is_sqlite(head):
                    self.files += 1
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                    yield from self._cfssl(file, place, digest)
                elif size > _MAX_FILE:
                    self.files += 1
                    yield from self._large(stream, place)
                else:
                    yield from self._small(stream.read(_MAX_FILE + 1), place, place)
        except OSError as error:
            self.problem(place, error.strerror or str(error), is_unavailable=True)
        except NotFound:  # a database of something else
            self.passed_over += 1
        except ChargePkiError as error:
            self._note(place, error)

    def _note(self, place: str, error: ChargePkiError) -> None:
        reason = f"{error.what}: {error.why}" if error.why else error.what
        self.problem(place, reason, is_unavailable=isinstance(error, UnavailableError))

    def _archive(self, stream: BinaryIO, place: str, allowance: Allowance, depth: int) -> Iterator[FoundCertificate]:
        for member in members(stream, allowance):
            inside = f"{place}!{_shown(member.name)}" if member.name else f"{place}!"
            if member.data is None:
                self.problem(inside, member.reason)
            elif is_archive(member.data[:512]):
                if depth == allowance.depth:
                    self.problem(inside, f"an archive in {depth} archives is not looked into")
                    continue
                try:
                    yield from self._archive(io.BytesIO(member.data), inside, allowance, depth + 1)
                except InputError as error:
                    if "beyond all measure" in error.what:
                        raise
                    self._note(inside, error)
            else:
                # What was compressed alone has the name of the file itself.
                yield from self._small(member.data, inside, inside if member.name else _COMPRESSED.sub("", place))

    def _small(self, data: bytes, place: str, path: str) -> Iterator[FoundCertificate]:
        """Yield the certificates of one file.

        Args:
            path: its name, as layouts know it.
        """
        self.files += 1
        try:
            yield from self._contents(data, place, path)
        except NotFound:
            self.passed_over += 1
        except ChargePkiError as error:
            self._note(place, error)

    def _contents(self, data: bytes, place: str, path: str) -> Iterator[FoundCertificate]:
        name = path.rpartition("/")[2]
        if is_index(data) or name == "index.txt":
            if not name.endswith(".old"):  # what openssl leaves of the database as it was before
                self._index(data, place)
            else:
                self.passed_over += 1
            return
        if _DUMP in data[:4096]:
            self.dumps.append((place, data))
            return
        digest = hashlib.sha256(data).hexdigest()
        if is_sqlite(data):
            yield from self._cfssl(data, place, digest)
            return
        role = role_of(path)
        ders = _plain_pem(data)
        if ders is None:
            yield from self._heap(data, place, digest, role)
            return
        for number, der in enumerate(ders, start=1):
            yield from self._certificate(der, place if len(ders) == 1 else f"{place}#{number}", digest, role)

    def _certificate(self, der: bytes, place: str, digest: str, role: str | None) -> Iterator[FoundCertificate]:
        try:
            found = read_facts(der, _fit(place), digest, role)
        except InputError as error:
            self._note(place, error)
            return
        yield found

    def _heap(self, data: bytes, place: str, digest: str, role: str | None) -> Iterator[FoundCertificate]:
        """Read anything else as the doctor does."""
        left = max(_MOST_SEALED - self._sealed, 0)
        heap = Heap(self.passphrases, Limits(file_bytes=_MAX_FILE, objects=1_000_000, sealed=left))
        heap.keys = keys = _KeyCount(self.passphrases)
        heap.add(data, place)
        self.private_keys += keys.count
        for skipped, reason in heap.skipped:
            if reason == "it is empty" or "doctor" in reason:
                self.passed_over += 1
            else:
                self.problem(skipped, reason)
        for file in heap.files:
            ders = [each for each in file.inputs if each.kind is ObjectKind.CERTIFICATE]
            self._sealed += file.reads_as in ("PKCS#12", "Java key store")
            self._judge(file, place, len(ders))
            for each in ders:
                yield from self._certificate(each.der, each.name, digest, role)

    def _judge(self, file: HeapFile, place: str, certificates: int) -> None:
        """Note what could not be read of a file."""
        unread = [each for each in file.findings if each.rule in _UNREAD]
        if unread:
            self.problem(place, unread[0].message)
        elif file.note:
            # What no passphrase would open is not asked for.
            asks = "" if "that is not read" in file.note else "; pass --bundle-passphrase-file"
            self.problem(place, f"{file.note}{asks}")
        elif not certificates:
            wrong = [each for each in file.findings if each.severity is Severity.ERROR]
            if wrong and not file.inputs:
                self.problem(place, wrong[0].message)
            else:
                self.passed_over += 1

    def _index(self, data: bytes, place: str) -> None:
        """Take in the rows of an index.txt, which speaks of the certificates in its folder and below."""
        rows = []
        for row in parse_index(data, within=place[: max(place.rfind("/"), place.rfind("!")) + 1]):
            if isinstance(row, InputError):
                self._note(place, row)
            else:
                rows.append(row)
        self.indexes.append((place, rows))

    def _cfssl(self, source: Path | bytes, place: str, digest: str) -> Iterator[FoundCertificate]:
        for row in read_cfssl(source):
            inside = f"{place}!certificates/{_shown(row.serial)}"
            ders = _plain_pem(row.pem.rstrip(b"\n") + b"\n")
            if not ders:
                self.problem(inside, "the row holds no certificate")
                continue
            for found in self._certificate(ders[0], inside, digest, None):
                if row.revocation is not None:
                    self.revocations.append(replace(row.revocation, serial=found.serial, sha256=found.sha256))
                yield found

    def _large(self, stream: BufferedReader, place: str) -> Iterator[FoundCertificate]:
        """Read a bundle of PEM that is too large to be held in memory."""
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        number, left = 0, b""
        while chunk := stream.read(_CHUNK):
            *blocks, left = (left + chunk).split(_END)
            for block in blocks:
                begin = block.rfind(_BEGIN)
                if begin < 0:
                    continue
                number += 1
                ders = _plain_pem(block[begin:] + _END)
                if ders:
                    yield from self._certificate(ders[0], f"{place}#{number}", digest, None)
                else:
                    self.problem(f"{place}#{number}", "a block that is no base64")
            begin = left.rfind(_BEGIN)
            left = left[begin:] if begin >= 0 and len(left) - begin < _CHUNK else left[-len(_BEGIN) :]
        if not number:
            self.problem(place, f"larger than {_MAX_FILE >> 20} MiB, and no bundle of PEM")


_UNREAD: Final = frozenset({"unreadable", "text-cut-off", "text-damaged"})


def _plain_pem(data: bytes) -> list[bytes] | None:
    """Return the certificates (DER) of PEM that holds nothing else; ``None`` for anything else."""
    if not data.startswith(_BEGIN):
        return None
    ders, at = [], 0
    for match in _PEM.finditer(data):
        if match.start() != at:
            return None
        at = match.end()
        try:
            ders.append(binascii.a2b_base64(match[1], strict_mode=False))
        except binascii.Error:
            return None
    return ders if at == len(data) else None


def _shown(name: str) -> str:
    """Return a name of a file as text that a terminal and a database can hold."""
    return printable(name)


def _fit(place: str) -> str:
    """Return *place* so short that an index of PostgreSQL holds it; different ones stay different."""
    if len(place) <= _MAX_PLACE:
        return place
    return f"{place[: _MAX_PLACE - 20]}~{hashlib.sha256(place.encode()).hexdigest()[:16]}"
