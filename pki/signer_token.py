"""Keys that are made in a token (PKCS #11) and never leave it: the key store of a workspace with ``key_token``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from chargepki.pki import der, oids
from chargepki.pki.errors import Conflict, InputError, SignerError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pkcs11_uri import TokenKeyUri, parse_pkcs11_uri
from chargepki.pki.signer import Signer, SoftwareKeyStore
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore
from chargepki.pki.token_library import load_library

__all__ = ["TokenKeyStore", "check_token_uri"]

_CURVES: Final[Mapping[KeyAlgorithm, str]] = {
    KeyAlgorithm.SECP256R1: oids.SECP256R1,
    KeyAlgorithm.SECP384R1: oids.SECP384R1,
    KeyAlgorithm.SECP521R1: oids.SECP521R1,
}
_RSA: Final[Mapping[KeyAlgorithm, int]] = {
    KeyAlgorithm.RSA2048: 2048,
    KeyAlgorithm.RSA3072: 3072,
    KeyAlgorithm.RSA4096: 4096,
}
_EXAMPLE: Final = "write for example pkcs11:token=HSM"


def check_token_uri(uri: str) -> str:
    """Return *uri* when it names a token, and no key of it.

    Raises:
        InputError: it names a key, or no token, or is no ``pkcs11:`` URI.
        PolicyRefusal: it carries a PIN or names a module.
    """
    path, question, query = uri.partition("?")
    if not uri.startswith("pkcs11:") or path == "pkcs11:":
        raise InputError(f"{uri[:80]!r} does not name a token", fix=_EXAMPLE)
    if any(part.split("=")[0] in ("object", "id", "type") for part in path.removeprefix("pkcs11:").split(";")):
        raise InputError("the URI names a key, and a token is asked for", fix=_EXAMPLE)
    parse_pkcs11_uri(f"{path};object=probe{question}{query}")
    return uri


class TokenKeyStore:
    """Makes keys in one token; those that a software store had before stay where they are.

    Args:
        tokens: reaches the token.
        token: its URI, as `check_token_uri` takes it.
        software: the keys from before the token.
    """

    def __init__(self, tokens: Pkcs11KeyStore, token: str, software: SoftwareKeyStore) -> None:
        self._tokens = tokens
        self._token = check_token_uri(token)
        self._software = software

    def __repr__(self) -> str:
        return f"TokenKeyStore({self._token!r})"

    def uri(self, label: str) -> str:
        """Return the URI of the key *label*: in the token, or of a key file that is there already.

        Raises:
            InputError: *label* cannot name a key file either, by which a workspace could move to a token and back.
        """
        file = self._software.uri(label)
        return file if self._software.exists(label) else self._uri(label)

    def exists(self, label: str) -> bool:
        """Return whether there is a key of that name, in the token or as a file.

        Raises:
            SignerError: the token cannot be used.
        """
        return self._software.exists(label) or self._tokens.holds(parse_pkcs11_uri(self._uri(label)))

    def create(self, label: str, algorithm: KeyAlgorithm) -> str:
        """Make a key in the token, neither to be read nor to be taken out, and return its URI.

        Raises:
            Conflict: the name is taken; the key that has it is unchanged.
            SignerError: no token, wrong PIN, no room in it, or a token that would give the key away.
        """
        if self.exists(label):
            raise Conflict(f"there is a key {label} already", why="a key is never overwritten", fix="use a new label")
        if algorithm not in _CURVES and algorithm not in _RSA:
            allowed = ", ".join((*_CURVES, *_RSA))
            raise SignerError(
                f"no {algorithm.value} key is made in a token",
                why="what signs with such a key in a token is not built",
                fix=f"use {allowed}",
            )
        uri = self._uri(label)
        wanted = parse_pkcs11_uri(uri)
        self._tokens.change(wanted, lambda session: _generate(session, wanted, algorithm))
        return uri

    def open(self, uri: str) -> Signer:
        """Return the signer of *uri*, a token's or a key file's.

        Raises:
            SignerError: whatever its store says.
        """
        return self._tokens.open(uri) if uri.startswith("pkcs11:") else self._software.open(uri)

    def check(self) -> None:
        """Log in to the token.

        Raises:
            SignerError: it cannot be used.
        """
        self._tokens.log_in(parse_pkcs11_uri(self._uri("any")))

    def discard(self, uri: str) -> None:
        """Destroy a key that `create` made and nobody was told of.

        Raises:
            SignerError: the token cannot be used.
        """
        wanted = parse_pkcs11_uri(uri)
        self._tokens.change(wanted, lambda session: _destroy(session, wanted))

    def _uri(self, label: str) -> str:
        path, question, query = self._token.partition("?")
        return f"{path};object={quote(label, safe='@')};type=private{question}{query}"


def _destroy(session: Any, wanted: TokenKeyUri) -> None:
    p11 = load_library()
    for kind in (p11.ObjectClass.PRIVATE_KEY, p11.ObjectClass.PUBLIC_KEY):
        for half in session.get_objects({p11.Attribute.CLASS: kind, p11.Attribute.LABEL: wanted.label}):
            half.destroy()


def _generate(session: Any, wanted: TokenKeyUri, algorithm: KeyAlgorithm) -> None:
    """Make the pair; when what was made could leave the token, destroy it again.

    Raises:
        SignerError: the token makes keys that can be taken out.
    """
    p11 = load_library()
    attribute, flag = p11.Attribute, p11.MechanismFlag
    locked = {
        attribute.SENSITIVE: True,
        attribute.EXTRACTABLE: False,
        attribute.PRIVATE: True,
        attribute.MODIFIABLE: False,
    }
    # Both halves get an id: by that the public one is found again, whatever else has the label.
    named: dict[str, Any] = {"label": wanted.label, "id": secrets.token_bytes(16), "store": True}
    named |= {"capabilities": flag.SIGN | flag.VERIFY, "private_template": locked}
    if algorithm in _CURVES:
        parameters = {attribute.EC_PARAMS: der.oid(_CURVES[algorithm])}
        domain = session.create_domain_parameters(p11.KeyType.EC, parameters, local=True)
        public, private = domain.generate_keypair(**named)
    else:
        public, private = session.generate_keypair(p11.KeyType.RSA, _RSA[algorithm], **named)
    if private[attribute.EXTRACTABLE] or not private[attribute.SENSITIVE]:
        for half in (private, public):
            half.destroy()
        raise SignerError(
            f"the token made {wanted.text} so that it can be taken out",
            why="it was asked for a key that stays, and what it made was removed again",
            fix="use another token, or correct its configuration",
        )
