"""Take in a heap of files: find the certificates, requests, keys and bundles in them, whatever state they are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chargepki.pki.der import DerError, parse
from chargepki.pki.doctor.jks import is_java_key_store, read_jks
from chargepki.pki.doctor.keyring import KeyRing
from chargepki.pki.doctor.text import mend
from chargepki.pki.errors import InputError
from chargepki.pki.findings import Finding, Severity
from chargepki.pki.lint.pkcs7_view import Pkcs7View, view_pkcs7
from chargepki.pki.lint.pkcs12_view import Pkcs12View, view_pkcs12
from chargepki.pki.lint.reading import LintInput, kind_of_label
from chargepki.pki.lint.sniff import ObjectKind, kind_of
from chargepki.pki.pem import PemBlock

__all__ = ["Heap", "HeapFile", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a heap may cost; more is refused with the words to say so."""

    file_bytes: int = 16 << 20
    total_bytes: int = 256 << 20
    files: int = 10_000
    objects: int = 5_000
    sealed: int = 50
    """PKCS#12 files and Java key stores: opening one may cost two seconds by design."""


@dataclass(slots=True)
class HeapFile:
    """One file: what was found in it and what is wrong with its form."""

    name: str
    reads_as: str
    findings: list[Finding] = field(default_factory=list)
    inputs: list[LintInput] = field(default_factory=list)
    blocks: tuple[PemBlock, ...] = ()
    note: str = ""
    is_container: bool = False
    """PKCS#7, PKCS#12 or a key store: the order in it says nothing."""


@dataclass(slots=True)
class Heap:
    """Files taken in so far. A bad one is told of and never stops the rest.

    Args:
        passphrases: called when something encrypted is there: UTF-8, tried in turn.
    """

    passphrases: Callable[[], Sequence[bytes]] = tuple
    limits: Limits = field(default_factory=Limits)
    files: list[HeapFile] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Files that hold nothing of ours, and why."""
    keys: KeyRing = field(init=False)
    _bytes: int = 0
    _objects: int = 0
    _sealed: int = 0

    def __post_init__(self) -> None:
        self.keys = KeyRing(self.passphrases)

    @property
    def inputs(self) -> list[LintInput]:
        """Every object, in the order of the files."""
        return [each for file in self.files for each in file.inputs]

    def add(self, data: bytes, name: str, *, mode: int | None = None) -> None:
        """Take in one file.

        Args:
            mode: permissions of the file, which matter for private keys.

        Raises:
            InputError: the heap grows beyond its limits.
        """
        self._bytes += len(data)
        if self._bytes > self.limits.total_bytes or len(self.files) + len(self.skipped) >= self.limits.files:
            raise InputError(
                f"the heap is too large at {name}",
                why=f"at most {self.limits.files} files and {self.limits.total_bytes >> 20} MiB are looked at",
                fix="point the doctor at a part of it",
            )
        if is_java_key_store(data):
            self._add_java(data, name)
            return
        mended = mend(data)
        if mended.binary is None:
            self._add_text(name, mended.blocks, mended.defects, mode)
            return
        found = _elements(mended.binary)
        if not found:
            self.skipped.append((name, "it is empty" if not data.strip() else "nothing that the doctor knows"))
            return
        file = self._file(name, "DER" if mended.binary is data else "base64", mended.defects)
        if len(found) > 1:
            file.findings.append(
                Finding(
                    "der-concatenated",
                    Severity.ERROR,
                    f"{len(found)} DER objects one behind the other; openssl reads the first alone",
                    "RFC 7468 5.3; X.690",
                    "write them as PEM: chargepki doctor PATH --write FILE",
                )
            )
        for number, der in enumerate(found, start=1):
            each = name if len(found) == 1 else f"{name}#{number}"
            kind = kind_of(der)
            if kind is not None:
                self._take(file, LintInput(each, name, kind, der, mode=mode))

    def _file(self, name: str, reads_as: str, findings: Sequence[Finding] = ()) -> HeapFile:
        file = HeapFile(name, reads_as, list(findings))
        self.files.append(file)
        return file

    def _add_text(self, name: str, blocks: Sequence[PemBlock], defects: Sequence[Finding], mode: int | None) -> None:
        known = [block for block in blocks if kind_of_label(block.label) is not None]
        if not known and not defects:
            labels = ", ".join(dict.fromkeys(block.label for block in blocks)) or "nothing"
            self.skipped.append((name, f"it holds {labels}, which the doctor does not know"))
            return
        file = self._file(name, "PEM", defects)
        file.blocks = tuple(blocks)
        for number, block in enumerate(known, start=1):
            each = name if len(known) == 1 else f"{name}#{number}"
            old = any(key == "Proc-Type" and "ENCRYPTED" in value for key, value in block.headers)
            kind = kind_of_label(block.label)
            self._take(file, LintInput(each, name, kind, block.der, mode=mode, old_encryption=old), block)

    def _take(self, file: HeapFile, each: LintInput, block: PemBlock | None = None) -> None:
        """Put one object where it belongs; what a bundle carries follows it."""
        self._count(file.name)
        if each.kind is ObjectKind.PRIVATE_KEY:
            file.inputs.append(each)
            self.keys.add(each.name, each.der, block)
        elif each.kind in (ObjectKind.PKCS7, ObjectKind.PKCS12):
            self._open_bundle(file, each)
        else:
            file.inputs.append(each)

    def _may_open(self) -> bool:
        self._sealed += 1
        return self._sealed <= self.limits.sealed

    def _open_bundle(self, file: HeapFile, each: LintInput) -> None:
        carrier: Pkcs7View | Pkcs12View
        if each.kind is ObjectKind.PKCS12 and not self._may_open():
            file.reads_as, file.note = "PKCS#12", f"not opened: more than {self.limits.sealed} such files"
            return
        try:
            if each.kind is ObjectKind.PKCS7:
                carrier = view_pkcs7(each.der)
            else:
                carrier = view_pkcs12(each.der, self.passphrases())
        except DerError as error:
            file.findings.append(_unreadable(each, error.what))
            return
        file.is_container = True
        members = [(ObjectKind.CERTIFICATE, der) for der in carrier.certificates]
        members += [(ObjectKind.CRL, der) for der in carrier.crls]
        file.reads_as = "PKCS#7" if each.kind is ObjectKind.PKCS7 else "PKCS#12"
        for number, (kind, der) in enumerate(members, start=1):
            self._count(file.name)
            file.inputs.append(LintInput(f"{each.name}#{number}", file.name, kind, der, carried=True))
        if isinstance(carrier, Pkcs12View):
            for number, (kept, sealed) in enumerate(zip(carrier.keys, carrier.sealed_keys, strict=True), start=1):
                label = "ENCRYPTED PRIVATE KEY" if kept.encrypted else "PRIVATE KEY"
                self.keys.add(f"{each.name}#key{number}", sealed, PemBlock(label, sealed))
            if carrier.closed:
                file.note = f"encrypted: {carrier.closed}"

    def _add_java(self, data: bytes, name: str) -> None:
        if not self._may_open():
            self.skipped.append((name, f"not opened: more than {self.limits.sealed} such files"))
            return
        try:
            store = read_jks(data, self.passphrases())
        except InputError as error:
            self.skipped.append((name, f"{error.what}: {error.fix}"))
            return
        file = self._file(name, "Java key store")
        file.is_container = True
        for number, der in enumerate(store.certificates, start=1):
            self._count(name)
            file.inputs.append(LintInput(f"{name}#{number}", name, ObjectKind.CERTIFICATE, der, carried=True))
        for key in store.keys:
            self.keys.add_opened(f"{name}#{key.alias}", key.pkcs8, store.closed)

    def _count(self, name: str) -> None:
        self._objects += 1
        if self._objects > self.limits.objects:
            raise InputError(
                f"more than {self.limits.objects} objects, at {name}",
                why="the doctor compares each with each",
                fix="point it at a part of the heap; chargepki lint judges any number",
            )


def _unreadable(each: LintInput, what: str) -> Finding:
    return Finding("unreadable", Severity.ERROR, f"{each.name}: {what}", "X.690", "restore it from its source")


_MOST_ELEMENTS: Final = 1000


def _elements(data: bytes) -> list[bytes]:
    """Return the DER objects that lie one behind the other; one that is broken is a single object."""
    if kind_of(data) is None:
        return []
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) < _MOST_ELEMENTS:
        try:
            length = len(parse(data, offset=at, strict_end=False, max_bytes=len(data)).raw)
        except DerError:
            break
        found.append(data[at : at + length])
        at += length
    rest = data[at:].strip(b"\0\r\n \t")
    if len(found) < 2 or rest or any(kind_of(each) is None for each in found):
        return [data]  # in BER, or broken, or with something behind it: what reads it says so
    return found
