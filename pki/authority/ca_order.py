"""What is asked for when a CA is to be created, and what can be said of it before anything else is looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

from chargepki.pki.authority.shards import FULL_LISTS, CrlSettings
from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.signer import KeyOpener
from chargepki.pki.template import Criticality

__all__ = ["CaOrder", "adopt_key", "check_label"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class CaOrder:
    """A CA to create."""

    name: str
    profile: str
    issuer: str | None = None
    """Name or id of the issuing CA; ``None`` for a self-signed root only."""
    subject: tuple[tuple[str, str], ...] = ()
    """Short name and value, in the order in which they are typed; the CN defaults to the name of the CA."""
    validity: timedelta | None = None
    key_algorithm: KeyAlgorithm | None = None
    criticality: Criticality = "profile"
    """``rfc5280`` overrides what a profile marks critical against RFC 5280; the override is audited."""
    crls: CrlSettings = FULL_LISTS
    """How its revocation lists are cut."""
    key_uri: str | None = None
    """A key that is there already, in a token (``pkcs11:``); ``None`` makes one."""
    succeeds: str | None = None
    """Id of the generation that this one follows: it takes over name, subject and issuing; ``None`` for a new CA."""

    def told(self) -> dict[str, object]:
        """Return what decides its creation, for those who approve it."""
        return {
            "name": self.name,
            "profile": self.profile,
            "issuer": self.issuer,
            "subject": ",".join(f"{name}={value}" for name, value in self.subject),
            "validity": self.validity,
            "key": self.key_algorithm,
            "key_uri": self.key_uri,
            "criticality": self.criticality,
        }


def check_label(label: str, what: str) -> str:
    """Return *label* when it matches the rule for names (interfaces, "Names").

    Raises:
        InputError: it does not.
    """
    if not _LABEL.match(label):
        raise InputError(
            f"{what} {label[:80]!r} is not a valid name",
            why="names are one to 64 letters, digits, dots, underscores and hyphens, and begin with a letter or digit",
            fix="choose such a name",
        )
    return label


def adopt_key(order: CaOrder, keystore: KeyOpener) -> CaOrder:
    """Return *order* with the algorithm of the key that it names; as it is when it names none.

    Raises:
        PolicyRefusal: *order* asks for another algorithm than the key has.
        SignerError: the key cannot be opened.
    """
    if order.key_uri is None:
        return order
    if not order.key_uri.startswith("pkcs11:"):
        raise InputError(
            f"{order.key_uri[:80]!r} is not the URI of a key in a token", fix="write pkcs11:token=…;object=…"
        )
    found = keystore.open(order.key_uri).algorithm
    if order.key_algorithm not in (None, found):
        raise PolicyRefusal(
            f"the key {order.key_uri} is {found.value}, not {order.key_algorithm}",
            fix="leave --key out, or make a key of that kind in the token",
        )
    return replace(order, key_algorithm=found)
