"""The two files that travel between an online and an offline workspace: a CA's request, and the signed answer.

Both are JSON objects of at most 256 KiB, UTF-8. What is signed or digested is their canonical form: sorted keys, no
blanks, ASCII. Nothing in a file is believed that its reader has not verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chargepki.pki import files
from chargepki.pki.der import decode_der_or_pem, to_pem
from chargepki.pki.errors import InputError

__all__ = ["MAX_FILE_BYTES", "CaAnswer", "CaRequestFile", "ChainEntry", "load_request"]

MAX_FILE_BYTES: Final = 1 << 18
_REQUEST: Final = "chargepki-ca-request"
_ANSWER: Final = "chargepki-ca-answer"
_MOST_ABOVE: Final = 5


@dataclass(frozen=True, slots=True)
class CaRequestFile:
    """What a CA, or the responder of one, asks to be certified for."""

    ca: str
    """Id of the generation, which is pending online; of a responder, the one that it is to answer for."""
    profile: str
    csr: bytes
    """PKCS#10, DER: proves that the key is held."""
    validity_seconds: int | None
    """``None`` takes the profile's default."""

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "format": _REQUEST,
            "version": 1,
            "ca": self.ca,
            "profile": self.profile,
            "validity_seconds": self.validity_seconds,
            "csr": to_pem("CERTIFICATE REQUEST", self.csr),
        }

    @property
    def encoded(self) -> bytes:
        """The file."""
        return (json.dumps(self.to_json(), indent=2) + "\n").encode("ascii")

    @property
    def sha256(self) -> str:
        """Digest of the canonical document (hex): read it to each other, and it is the same request."""
        return hashlib.sha256(_canonical(self.to_json())).hexdigest()

    @classmethod
    def parse(cls, data: bytes) -> CaRequestFile:
        """Read a file.

        Raises:
            InputError: it is none.
        """
        document = _load(data, _REQUEST, {"ca", "profile", "validity_seconds", "csr"})
        seconds = document["validity_seconds"]
        if seconds is not None and (not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1):
            raise InputError("validity_seconds is no whole number above 0", fix="get the file anew")
        csr = decode_der_or_pem(_text(document, "csr").encode(), ("CERTIFICATE REQUEST",), "csr", MAX_FILE_BYTES)
        return cls(_text(document, "ca"), _text(document, "profile"), csr, seconds)


def load_request(path: Path) -> CaRequestFile:
    """Read the request in the file *path*.

    Raises:
        InputError: it is none.
    """
    return CaRequestFile.parse(files.read_limited(path, MAX_FILE_BYTES, "request"))


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """A CA above the one that was certified."""

    id: str
    """As it is called where its key is, and in the URLs of what it issued."""
    profile: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class CaAnswer:
    """What the offline workspace says to a request; signed with the issuer's key."""

    request_sha256: str
    certificate: bytes
    chain: tuple[ChainEntry, ...]
    """The issuer first, its root last."""
    verdict: Mapping[str, Any]
    """What the request policy said there, rule by rule."""
    signature: bytes = b""

    def _content(self) -> dict[str, Any]:
        return {
            "format": _ANSWER,
            "version": 1,
            "request_sha256": self.request_sha256,
            "certificate": to_pem("CERTIFICATE", self.certificate),
            "chain": [
                {"id": each.id, "profile": each.profile, "certificate": to_pem("CERTIFICATE", each.certificate)}
                for each in self.chain
            ],
            "verdict": dict(self.verdict),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {**self._content(), "signature": base64.b64encode(self.signature).decode("ascii")}

    @property
    def signed_octets(self) -> bytes:
        """What the issuer's key signs; the first words keep such a signature from meaning anything elsewhere."""
        return b"chargepki ca answer v1\n" + hashlib.sha256(_canonical(self._content())).digest()

    @classmethod
    def parse(cls, data: bytes) -> CaAnswer:
        """Read a file.

        Raises:
            InputError: it is none.
        """
        fields = {"request_sha256", "certificate", "chain", "verdict", "signature"}
        document = _load(data, _ANSWER, fields)
        chain, verdict = document["chain"], document["verdict"]
        if not isinstance(chain, list) or not 1 <= len(chain) <= _MOST_ABOVE or not isinstance(verdict, dict):
            raise InputError("the answer's chain or verdict is malformed", fix="get the file anew")
        entries = []
        for each in chain:
            if not isinstance(each, dict) or set(each) != {"id", "profile", "certificate"}:
                raise InputError("a part of the answer's chain is malformed", fix="get the file anew")
            entries.append(ChainEntry(_text(each, "id"), _text(each, "profile"), _certificate(each)))
        try:
            signature = base64.b64decode(_text(document, "signature"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError("the answer's signature is not base64", fix="get the file anew") from error
        return cls(_text(document, "request_sha256"), _certificate(document), tuple(entries), verdict, signature)


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")


def _load(data: bytes, kind: str, fields: set[str]) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError("this is no JSON", why=type(error).__name__, fix=f"give a file of format {kind}") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        raise InputError(f"this is no {kind} file", fix="ca request writes requests, ca sign-request writes answers")
    if document.get("version") != 1:
        raise InputError("the file has a version that this release does not know", fix="use the newer chargepki")
    if set(document) != {"format", "version", *fields}:
        raise InputError("the file lacks a field, or has one too many", fix="get the file anew")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str) or len(value) > MAX_FILE_BYTES or not value:
        raise InputError(f"{name} is no text", fix="get the file anew")
    return value


def _certificate(document: Mapping[str, Any]) -> bytes:
    encoded = _text(document, "certificate").encode("utf-8")
    return decode_der_or_pem(encoded, ("CERTIFICATE",), "certificate", MAX_FILE_BYTES)
