"""What a simulated station can be told to do wrong, by name: mistakes that stations in the field have made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from chargepki.ocpp_security.station.csr import CsrForgery, CsrSpelling
from chargepki.ocpp_security.station.firmware import FirmwareFault
from chargepki.ocpp_security.trust_store import TrustPolicy
from chargepki.pki.errors import InputError
from chargepki.pki.hashdata_defects import MEANINGS as HASH_MEANINGS
from chargepki.pki.hashdata_defects import HashDefect

__all__ = ["HONEST", "MISBEHAVIOURS", "Conduct", "Misbehaviour", "parse_conduct"]


class Misbehaviour(StrEnum):
    """One thing that the station does wrong on its connection; `MISBEHAVIOURS` says it in words.

    Wrong hash data (`HashDefect`) and failing updates (`FirmwareFault`, with ``firmware-`` in front) have names too.
    """

    CSR_CA = "csr-ca"
    CSR_OTHER_NAME = "csr-other-name"
    CSR_EXTENSIONS = "csr-extensions"
    CSR_NEW_LABEL = "csr-new-label"
    CSR_BASE64 = "csr-base64"
    CSR_CRLF = "csr-crlf"
    CSR_ESCAPED = "csr-escaped"
    CSR_UNTYPED = "csr-untyped"
    CSR_STORM = "csr-storm"
    CSR_NEVER = "csr-never"
    SIGNED_TAKES_ANYTHING = "signed-takes-anything"
    SIGNED_REFUSED = "signed-refused"
    SIGNED_UNANSWERED = "signed-unanswered"
    SIGNED_FORGOTTEN = "signed-forgotten"
    SIGNED_STAYS = "signed-stays"
    ROOT_ANYTHING = "root-anything"
    ROOT_FORGOTTEN = "root-forgotten"
    DELETE_FORGOTTEN = "delete-forgotten"
    LIST_EMPTY = "list-empty"
    LIST_CHILDREN_REVERSED = "list-children-reversed"
    PASSWORD_FORGOTTEN = "password-forgotten"  # noqa: S105 (the name of a mistake)
    PASSWORD_HEX = "password-hex"  # noqa: S105 (the name of a mistake)
    PROFILE_FORGOTTEN = "profile-forgotten"
    NETWORK_BY_VARIABLES = "network-by-variables"
    SLOT_PASSWORD_IGNORED = "slot-password-ignored"  # noqa: S105 (the name of a mistake)
    BOOT_OTHER_SERIAL = "boot-other-serial"
    EVENTS_EARLY = "events-early"
    EVENTS_TWICE = "events-twice"
    RECONNECT_STORM = "reconnect-storm"
    SECOND_CONNECTION = "second-connection"
    STATUS_JOINED_URLS = "status-joined-urls"
    STATUS_PRIVATE_URL = "status-private-url"
    AUTHORIZE_BOTH = "authorize-both"
    AUTHORIZE_WITH_ROOT = "authorize-with-root"
    AUTHORIZE_UNORDERED = "authorize-unordered"


_MEANINGS: Final[Mapping[Misbehaviour, str]] = MappingProxyType(
    {
        Misbehaviour.CSR_CA: "the CSR asks for CA:TRUE and keyCertSign",
        Misbehaviour.CSR_OTHER_NAME: "the CSR asks for another station's name",
        Misbehaviour.CSR_EXTENSIONS: "the CSR asks for keyUsage and DC=CPO, as if it were for ISO 15118",
        Misbehaviour.CSR_NEW_LABEL: "the CSR's PEM label is NEW CERTIFICATE REQUEST",
        Misbehaviour.CSR_BASE64: "the CSR's PEM is wrapped in base64 once more",
        Misbehaviour.CSR_CRLF: "the CSR's lines end with CR and LF",
        Misbehaviour.CSR_ESCAPED: "the CSR's line ends are a backslash and an n",
        Misbehaviour.CSR_UNTYPED: "SignCertificate leaves certificateType out (2.x)",
        Misbehaviour.CSR_STORM: "an unanswered CSR is sent again after milliseconds in place of seconds",
        Misbehaviour.CSR_NEVER: "the trigger is Accepted and no CSR follows",
        Misbehaviour.SIGNED_TAKES_ANYTHING: "every CertificateSigned is Accepted, unusable chains and foreign keys too",
        Misbehaviour.SIGNED_REFUSED: "every CertificateSigned is Rejected",
        Misbehaviour.SIGNED_UNANSWERED: "CertificateSigned is never answered, nor anything after it",
        Misbehaviour.SIGNED_FORGOTTEN: "CertificateSigned is Accepted, and the key is lost",
        Misbehaviour.SIGNED_STAYS: "CertificateSigned is Accepted, and the old connection goes on",
        Misbehaviour.ROOT_ANYTHING: "anything is installed as a root, and what is none is never found again",
        Misbehaviour.ROOT_FORGOTTEN: "InstallCertificate is Accepted, and nothing is installed",
        Misbehaviour.DELETE_FORGOTTEN: "DeleteCertificate is Accepted, and nothing is deleted",
        Misbehaviour.LIST_EMPTY: "no certificate found is Accepted with an empty list, which the schema forbids",
        Misbehaviour.LIST_CHILDREN_REVERSED: "the sub-CAs of a listed V2G chain stand root side first",
        Misbehaviour.PASSWORD_FORGOTTEN: "a new password is Accepted, and the old one is used",
        Misbehaviour.PASSWORD_HEX: "1.6: the hexadecimal text of AuthorizationKey is taken for the password",
        Misbehaviour.PROFILE_FORGOTTEN: "a raised security profile is Accepted, and the old one is used",
        Misbehaviour.NETWORK_BY_VARIABLES: "SetNetworkProfile is NotSupported; 2.1 has the slots as variables",
        Misbehaviour.SLOT_PASSWORD_IGNORED: "2.1: a slot's own password is Accepted, and SecurityCtrlr's is used",
        Misbehaviour.BOOT_OTHER_SERIAL: "BootNotification tells another serial number than the certificate",
        Misbehaviour.EVENTS_EARLY: "security events are sent before the boot is accepted",
        Misbehaviour.EVENTS_TWICE: "every security event is sent twice",
        Misbehaviour.RECONNECT_STORM: "a refused or lost connection is tried again at once, for ever",
        Misbehaviour.SECOND_CONNECTION: "a second connection is opened in its own name",
        Misbehaviour.STATUS_JOINED_URLS: "responderURL holds several addresses without anything between them",
        Misbehaviour.STATUS_PRIVATE_URL: "responderURL is an address inside the network of the CSMS",
        Misbehaviour.AUTHORIZE_BOTH: "Authorize carries the contract chain and hash data",
        Misbehaviour.AUTHORIZE_WITH_ROOT: "the contract chain in Authorize ends with the root",
        Misbehaviour.AUTHORIZE_UNORDERED: "the contract chain in Authorize stands root side first",
    }
)
_FIRMWARE: Final = {
    FirmwareFault.REFUSE: "an update is Rejected",
    FirmwareFault.DOWNLOAD: "every attempt to download an image fails",
    FirmwareFault.CORRUPT: "one bit of a downloaded image changes",
    FirmwareFault.VERIFICATION: "the installed image does not verify",
    FirmwareFault.INSTALLATION: "writing an image fails",
    FirmwareFault.SILENT: "nothing is reported after a download",
}
MISBEHAVIOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{each.value: text for each, text in _MEANINGS.items()},
        **{each.value: HASH_MEANINGS[each] for each in HashDefect},
        **{f"firmware-{each.value}": text for each, text in _FIRMWARE.items()},
    }
)
"""Every name, with what is done wrong."""

_SPELLINGS: Final = {
    Misbehaviour.CSR_NEW_LABEL: CsrSpelling.NEW_LABEL,
    Misbehaviour.CSR_BASE64: CsrSpelling.BASE64,
    Misbehaviour.CSR_CRLF: CsrSpelling.CRLF,
    Misbehaviour.CSR_ESCAPED: CsrSpelling.ESCAPED,
}


@dataclass(frozen=True, slots=True)
class Conduct:
    """Everything that one station does wrong; an empty one is honest."""

    own: frozenset[Misbehaviour] = frozenset()
    hash_defects: frozenset[HashDefect] = frozenset()
    firmware: frozenset[FirmwareFault] = frozenset()

    def does(self, what: Misbehaviour) -> bool:
        """Say whether the station does *what*."""
        return what in self.own

    @property
    def forgery(self) -> CsrForgery | None:
        """What its CSRs ask for against the rules."""
        found = CsrForgery(
            ca=self.does(Misbehaviour.CSR_CA),
            common_name="SOMEBODY-ELSE" if self.does(Misbehaviour.CSR_OTHER_NAME) else None,
            extensions=self.does(Misbehaviour.CSR_EXTENSIONS),
            spelling=next((way for each, way in _SPELLINGS.items() if self.does(each)), None),
        )
        return None if found == CsrForgery() else found

    def policy(self, policy: TrustPolicy) -> TrustPolicy:
        """Return how it decides about roots, from how an honest station would."""
        return replace(
            policy,
            hash_defects=policy.hash_defects | self.hash_defects,
            takes_anything=policy.takes_anything or self.does(Misbehaviour.ROOT_ANYTHING),
        )

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Messages whose answers may break their schemas."""
        breaks = bool(self.hash_defects) or self.does(Misbehaviour.LIST_EMPTY)
        return ("DeleteCertificate", "GetInstalledCertificateIds") if breaks else ()


HONEST: Final = Conduct()


def parse_conduct(names: Iterable[str]) -> Conduct:
    """Return the conduct that *names* describe.

    Raises:
        InputError: an unknown name, or two spellings for one CSR.

    >>> sorted(parse_conduct(["csr-storm", "serial-decimal", "firmware-corrupt"]).own)
    [<Misbehaviour.CSR_STORM: 'csr-storm'>]
    """
    wanted = list(names)
    unknown = [name for name in wanted if name not in MISBEHAVIOURS]
    if unknown:
        raise InputError(
            f"no misbehaviour is called {unknown[0]!r}", fix="list them with: chargepki station misbehaviours"
        )
    own = frozenset(each for each in Misbehaviour if each.value in wanted)
    spelled = _of(own, _SPELLINGS)
    if len(spelled) > 1:
        raise InputError(f"a CSR is spelled in one way: {' and '.join(spelled)} exclude each other")
    return Conduct(
        own,
        frozenset(each for each in HashDefect if each.value in wanted),
        frozenset(each for each in FirmwareFault if f"firmware-{each.value}" in wanted),
    )


def _of(own: Collection[Misbehaviour], which: Collection[Misbehaviour]) -> list[str]:
    return sorted(each.value for each in own if each in which)
