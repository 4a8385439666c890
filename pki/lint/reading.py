"""Find the objects in a file: PEM or DER, several in one, bundles of them, hash data in JSON."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chargepki.pki.der import DerError
from chargepki.pki.errors import InputError
from chargepki.pki.lint.pkcs7_view import Pkcs7View, view_pkcs7
from chargepki.pki.lint.pkcs12_view import Pkcs12View, view_pkcs12
from chargepki.pki.lint.sniff import ObjectKind, kind_of
from chargepki.pki.pem import PemBlock, pem_blocks

__all__ = ["LintInput", "as_text", "kind_of_label", "read_inputs"]

_MAX_BYTES: Final = 64 << 20
_BY_LABEL: Final = {
    "CERTIFICATE": ObjectKind.CERTIFICATE,
    "TRUSTED CERTIFICATE": ObjectKind.CERTIFICATE,
    "X509 CERTIFICATE": ObjectKind.CERTIFICATE,
    "X509 CRL": ObjectKind.CRL,
    "CERTIFICATE REQUEST": ObjectKind.CSR,
    "NEW CERTIFICATE REQUEST": ObjectKind.CSR,
    "OCSP RESPONSE": ObjectKind.OCSP_RESPONSE,
    "PKCS7": ObjectKind.PKCS7,
    "PKCS #7 SIGNED DATA": ObjectKind.PKCS7,
    "CMS": ObjectKind.PKCS7,
    "PKCS12": ObjectKind.PKCS12,
    "PRIVATE KEY": ObjectKind.PRIVATE_KEY,
    "ENCRYPTED PRIVATE KEY": ObjectKind.PRIVATE_KEY,
    "EC PRIVATE KEY": ObjectKind.PRIVATE_KEY,
    "RSA PRIVATE KEY": ObjectKind.PRIVATE_KEY,
    "DSA PRIVATE KEY": ObjectKind.PRIVATE_KEY,
}


@dataclass(frozen=True, slots=True)
class LintInput:
    """One object that was found in a file or received from a peer."""

    name: str
    file: str
    kind: ObjectKind | None
    """``None`` for hash data, which is JSON."""
    der: bytes = field(default=b"", repr=False)  # may be a private key
    value: Mapping[str, Any] = field(default_factory=dict)
    carrier: Pkcs7View | Pkcs12View | None = None
    """What a PKCS#7 or PKCS#12 file was read as; its certificates and lists follow as inputs of their own."""
    carried: bool = False
    """Found in such a file."""
    mode: int | None = None
    """Permissions of the file of a private key, where it has any."""
    old_encryption: bool = False
    """A private key under the encryption of OpenSSL's old PEM form: no DER."""


def kind_of_label(label: str) -> ObjectKind | None:
    """Return what a PEM block with *label* holds, or ``None`` when it is nothing that can be judged."""
    return _BY_LABEL.get(label)


def as_text(name: str) -> str:
    """Return *name* with octets of a file's name that are no UTF-8 as escapes, so that JSON can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_inputs(
    data: bytes, file: str, *, mode: int | None = None, passphrases: Callable[[], Sequence[bytes]] = tuple
) -> tuple[list[LintInput], list[PemBlock]]:
    """Return the objects in *data* (PEM, DER, base64 or JSON) and the PEM blocks, if it is PEM.

    A PKCS#7 or PKCS#12 file is followed by the certificates and lists in it.

    Args:
        mode: permissions of the file, which matter for private keys.
        passphrases: called when there is a PKCS#12 file: UTF-8, tried after the empty one.

    Raises:
        InputError: nothing that the linter knows.
    """
    if b"-----BEGIN " in data and data[:1] != b"\x30":
        blocks = pem_blocks(data, max_bytes=_MAX_BYTES)
        found = [block for block in blocks if block.label in _BY_LABEL]
        inputs: list[LintInput] = []
        for number, block in enumerate(found, start=1):
            name = file if len(found) == 1 else f"{file}#{number}"
            old = any(key == "Proc-Type" and "ENCRYPTED" in value for key, value in block.headers)
            each = LintInput(name, file, _BY_LABEL[block.label], block.der, mode=mode, old_encryption=old)
            inputs += _unpacked(each, passphrases)
        if not blocks:
            raise _nothing(file)
        return inputs, blocks
    if data[:1] == b"\x30" and (kind := kind_of(data)) is not None:
        return list(_unpacked(LintInput(file, file, kind, data, mode=mode), passphrases)), []
    if data.lstrip()[:1] in (b"{", b"["):
        return list(_hash_data(data, file)), []
    raise _nothing(file)


def _unpacked(each: LintInput, passphrases: Callable[[], Sequence[bytes]]) -> Iterator[LintInput]:
    """Yield *each*, and what it carries."""
    try:
        if each.kind is ObjectKind.PKCS7:
            carrier: Pkcs7View | Pkcs12View = view_pkcs7(each.der)
        elif each.kind is ObjectKind.PKCS12:
            carrier = view_pkcs12(each.der, passphrases())
        else:
            yield each
            return
    except DerError as error:
        if error.rule == "not-signed-data":
            raise InputError(
                f"{each.name}: {error.what.partition(': ')[2]}",
                why="certificates travel in PKCS#7 signed data",
                fix="export the certificates: openssl crl2pkcs7 -nocrl -certfile chain.pem",
            ) from error
        yield each
        return
    yield replace(each, carrier=carrier)
    members = [(ObjectKind.CERTIFICATE, der) for der in carrier.certificates]
    members += [(ObjectKind.CRL, der) for der in carrier.crls]
    for number, (kind, der) in enumerate(members, start=1):
        yield LintInput(f"{each.name}#{number}", each.file, kind, der, carried=True)


def _nothing(file: str) -> InputError:
    return InputError(
        f"{file} holds nothing that can be judged",
        why="certificates, to-be-signed certificates, requests, CRLs, OCSP responses, PKCS#7, PKCS#12 and private keys "
        "(PEM or DER) can, and certificate hash data (JSON)",
        fix="check the path",
    )


def _hash_data(data: bytes, file: str) -> Iterator[LintInput]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON", why=str(error)[:200]) from error
    waiting, found = deque([document]), []
    while waiting:
        value = waiting.popleft()
        if isinstance(value, dict):
            if "hashAlgorithm" in value or "issuerNameHash" in value:
                found.append(value)
            else:
                waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if not found:
        raise _nothing(file)
    for number, value in enumerate(found, start=1):
        yield LintInput(file if len(found) == 1 else f"{file}#{number}", file, None, value=value)
