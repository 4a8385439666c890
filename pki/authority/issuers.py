"""Open the CAs of ours: their record, their key, and what certificates take over from them, kept while unchanged."""

from __future__ import annotations

import threading
from dataclasses import replace

from cryptography import x509

from chargepki.pki.authority.issuance import Issuer, chain_of, issuer_info
from chargepki.pki.errors import SignerError, StateError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import spki_sha256
from chargepki.pki.profiles import get_profile
from chargepki.pki.signer import KeyStore
from chargepki.pki.template import IssuerInfo

__all__ = ["IssuerCache", "NotOurs"]


class NotOurs(SignerError):
    """The CA's key is with somebody else, whom `external` asks."""

    def __init__(self, ca: CaRecord) -> None:
        super().__init__(
            f"the key of {ca.id} is not here",
            why="that CA belongs to somebody else and is reached over EST",
            fix="certificates of it are ordered like any other; its lists are its own to publish",
        )
        self.ca = ca


class IssuerCache:
    """The opened CAs of one authority; for several threads.

    Args:
        public_url: base of the URLs written into certificates; ``None`` takes what each CA was created with.
    """

    def __init__(self, inventory: Inventory, keystore: KeyStore, public_url: str | None) -> None:
        self._inventory = inventory
        self._keystore = keystore
        self._public_url = public_url
        self._opened: dict[str, Issuer] = {}
        self._lock = threading.Lock()

    def open(self, ca: str, *, for_crl: bool = False) -> Issuer:
        """Return the CA *ca* (name or id) with its key opened; kept while its record stays the same.

        Args:
            for_crl: to sign a list, which a retired or revoked CA may.

        Raises:
            StateError: the CA is not active.
            SignerError: its key cannot be opened, or is not the key of its certificate.
            NotOurs: its key is with somebody else.
        """
        record = self._inventory.get_ca(ca)
        _check_may_sign(record, for_crl=for_crl)
        # The setting of this process comes before what the CA was made with.
        known = record if self._public_url is None else replace(record, public_url=self._public_url)
        with self._lock:
            opened = self._opened.get(record.id)
        # How its lists are cut may be changed while it is open.
        if opened is not None and opened.ca == known:
            return opened
        if record.key_uri.startswith("est:"):
            raise NotOurs(record)
        if record.is_external:
            raise SignerError(
                f"the key of {record.id} is not here",
                why="it is offline, or with somebody else",
                fix="sign where the key is; bring the answer with `chargepki ca accept`, lists with `crl import`",
            )
        signer = self._keystore.open(record.key_uri)
        profile = get_profile(record.profile)
        issuer = Issuer(
            ca=known,
            profile=profile,
            signer=signer,
            info=_named_as_certified(record, issuer_info(signer, record.subject_der, profile)),
            chain=chain_of(self._inventory, record),
        )
        _check_key(issuer)
        with self._lock:
            self._opened[record.id] = issuer
        return issuer


def _named_as_certified(record: CaRecord, info: IssuerInfo) -> IssuerInfo:
    """Return *info* with the key identifier of the CA's certificate: a CA that was imported may have any."""
    assert record.certificate_der is not None, "a CA that may sign has one"
    certificate = x509.load_der_x509_certificate(record.certificate_der)
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return info
    return info if own == info.key_identifier else replace(info, key_identifier=own)


def _check_may_sign(record: CaRecord, *, for_crl: bool) -> None:
    usable = (CaState.ACTIVE, CaState.RETIRED, CaState.REVOKED) if for_crl else (CaState.ACTIVE,)
    if record.state not in usable or record.certificate_der is None:
        is_pending = record.state is CaState.PENDING
        raise StateError(
            f"CA {record.id} is {record.state.value}",
            why="its creation was interrupted, or its request not answered yet" if is_pending else "it may not sign",
            fix="run the same `ca create` again, or `ca accept` the answer" if is_pending else "use another CA",
        )


def _check_key(issuer: Issuer) -> None:
    """Refuse a key that is not the CA's: a signature by it would verify nowhere."""
    if issuer.ca.spki_sha256 != spki_sha256(issuer.signer.spki_der):
        raise SignerError(
            f"the key {issuer.ca.key_uri} is not the key of {issuer.ca.id}",
            why="the certificate of the CA holds another public key",
            fix="put the right key file back from your backup",
        )
