"""Our vocabulary and OCPP's, per version: certificate uses, triggers, root uses, boot notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from chargepki.ocpp_security import pnc_transfer, schemas
from chargepki.ocpp_security.errors import CallErrorAnswer, OcppRefusal, RpcErrorCode, StatusAnswer
from chargepki.ocpp_security.pnc_transfer import Dialect, Transfer
from chargepki.ocpp_security.schemas import Kind
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki.errors import InputError

__all__ = [
    "BootReceived",
    "CertificateUse",
    "CsrReceived",
    "RootUse",
    "SignedReceived",
    "WireCall",
    "build_certificate_signed",
    "build_sign_certificate",
    "build_trigger",
    "find_trigger_use",
    "max_chain_characters",
    "max_csr_characters",
    "parse_boot_notification",
    "parse_certificate_signed",
    "parse_root_use",
    "parse_sign_certificate",
    "read_status",
    "root_use_name",
    "status_answer",
    "supports_use",
    "unwrap_answer",
    "words_of",
]


class CertificateUse(StrEnum):
    """What a station's certificate is for; the first three are OCPP's own certificateType values."""

    CHARGING_STATION = "ChargingStationCertificate"
    V2G = "V2GCertificate"
    V2G20 = "V2G20Certificate"
    COMBINED = "Combined"
    """One certificate for the CSMS link and for ISO 15118: certificateType left out (2.x)."""


class RootUse(StrEnum):
    """What an installed root is trusted for; the values are those of the command line."""

    CSMS = "csms"
    MANUFACTURER = "manufacturer"
    V2G = "v2g"
    MO = "mo"
    OEM = "oem"
    V2G_CHAIN = "v2g-chain"
    """The station's own V2G chain: can be listed, not installed."""


@dataclass(frozen=True, slots=True)
class WireCall:
    """A call in the words of one version."""

    action: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class CsrReceived:
    """A station asks for a certificate (SignCertificate)."""

    use: CertificateUse
    csr: str
    """As received: PEM, in the field with all its variations."""
    request_id: int | None = None
    """2.1: to be copied into CertificateSigned (A02.FR.25)."""
    root_hash: Mapping[str, str] | None = None
    """2.1: hashRootCertificate, the root that shall issue (A02.FR.27)."""
    dialect: Dialect | None = None
    """1.6: of the DataTransfer that it came in, whose answer and certificate go in one as well."""


@dataclass(frozen=True, slots=True)
class SignedReceived:
    """A station receives a chain (CertificateSigned)."""

    use: CertificateUse | None
    """``None``: not said; the use of the outstanding request counts."""
    chain: str
    """PEM text, leaf first."""
    request_id: int | None = None


@dataclass(frozen=True, slots=True)
class BootReceived:
    """Who a station says it is (BootNotification)."""

    serial_number: str | None
    """What the CN of its certificate must equal; ``None``: not said, which profile 3 treats as a mismatch."""
    model: str
    vendor: str
    firmware_version: str | None = None
    other_serial_numbers: tuple[str, ...] = ()
    """1.6: chargeBoxSerialNumber, deprecated, yet the only one that some stations fill in."""


_USES: Mapping[OcppVersion, frozenset[CertificateUse]] = MappingProxyType(
    {
        OcppVersion.V16: frozenset({CertificateUse.CHARGING_STATION, CertificateUse.V2G}),
        OcppVersion.V201: frozenset({CertificateUse.CHARGING_STATION, CertificateUse.V2G, CertificateUse.COMBINED}),
        OcppVersion.V21: frozenset(CertificateUse),
    }
)

_TRIGGERS_2X: Mapping[CertificateUse, str] = MappingProxyType(
    {
        CertificateUse.CHARGING_STATION: "SignChargingStationCertificate",
        CertificateUse.V2G: "SignV2GCertificate",
        CertificateUse.V2G20: "SignV2G20Certificate",
        CertificateUse.COMBINED: "SignCombinedCertificate",
    }
)
_TRIGGER_16 = "SignChargePointCertificate"

_ROOTS_16: Mapping[RootUse, str] = MappingProxyType(
    {RootUse.CSMS: "CentralSystemRootCertificate", RootUse.MANUFACTURER: "ManufacturerRootCertificate"}
)
_ROOTS_201: Mapping[RootUse, str] = MappingProxyType(
    {
        RootUse.CSMS: "CSMSRootCertificate",
        RootUse.MANUFACTURER: "ManufacturerRootCertificate",
        RootUse.V2G: "V2GRootCertificate",
        RootUse.MO: "MORootCertificate",
        RootUse.V2G_CHAIN: "V2GCertificateChain",
    }
)
_ROOTS: Mapping[OcppVersion, Mapping[RootUse, str]] = MappingProxyType(
    {
        OcppVersion.V16: _ROOTS_16,
        OcppVersion.V201: _ROOTS_201,
        OcppVersion.V21: MappingProxyType({**_ROOTS_201, RootUse.OEM: "OEMRootCertificate"}),
    }
)


def supports_use(version: OcppVersion, use: CertificateUse) -> bool:
    """Say whether *version* has certificates of this use; in 1.6, V2G leaves travel in a DataTransfer."""
    return use in _USES[version]


def words_of(version: OcppVersion, use: CertificateUse) -> OcppVersion:
    """Return the version in whose words a message about *use* is written: 2.0.1's inside a DataTransfer of 1.6."""
    return OcppVersion.V201 if version is OcppVersion.V16 and use is CertificateUse.V2G else version


def build_trigger(version: OcppVersion, use: CertificateUse, *, evse: int | None = None) -> WireCall:
    """Return the call that makes a station send a CSR for *use* (A02).

    Args:
        evse: 2.x: the EVSE whose SeccId the V2G leaf is for, where a station has several.

    Raises:
        InputError: *version* has no such use, or *evse* with a use or version that takes none.
    """
    _check_use(version, use)
    if evse is not None and (version is OcppVersion.V16 or use is CertificateUse.CHARGING_STATION):
        raise InputError("an EVSE can be named for V2G certificates of OCPP 2.x only")
    if version is OcppVersion.V16 and use is CertificateUse.CHARGING_STATION:
        return WireCall("ExtendedTriggerMessage", {"requestedMessage": _TRIGGER_16})
    payload: dict[str, object] = {"requestedMessage": _TRIGGERS_2X[use]}
    if evse is not None:
        payload["evse"] = {"id": evse}
    return _wrapped(version, use, "TriggerMessage", payload)


def find_trigger_use(version: OcppVersion, action: str, payload: Mapping[str, object]) -> CertificateUse | None:
    """Return the use whose CSR a received trigger asks for, or ``None`` if it asks for something else.

    A DataTransfer of 1.6 may have one inside.
    """
    transfer = _transfer(version, action == "DataTransfer", payload)
    if transfer is not None:
        wants = transfer.payload.get("requestedMessage") if transfer.message == "TriggerMessage" else None
        return CertificateUse.V2G if wants == _TRIGGERS_2X[CertificateUse.V2G] else None
    requested = payload.get("requestedMessage")
    if version is OcppVersion.V16:
        wanted = action == "ExtendedTriggerMessage" and requested == _TRIGGER_16
        return CertificateUse.CHARGING_STATION if wanted else None
    if action != "TriggerMessage":
        return None
    return next((use for use, name in _TRIGGERS_2X.items() if name == requested and supports_use(version, use)), None)


def max_csr_characters(version: OcppVersion) -> int:
    """Return how long a CSR may be, in characters of its PEM text."""
    return schemas.max_length(version, "SignCertificate", Kind.REQUEST, "csr")


def max_chain_characters(version: OcppVersion) -> int:
    """Return how long a chain may be on the wire; a station may support less (MaxCertificateChainSize)."""
    return schemas.max_length(version, "CertificateSigned", Kind.REQUEST, "certificateChain")


def build_sign_certificate(
    version: OcppVersion,
    use: CertificateUse,
    csr: str,
    *,
    request_id: int | None = None,
    root_hash: Mapping[str, str] | None = None,
    dialect: Dialect = Dialect.OCA,
) -> WireCall:
    """Return the SignCertificate call of a station.

    Args:
        csr: PEM.
        dialect: of the DataTransfer that a CSR for a V2G leaf travels in, in 1.6.
        request_id: 2.1 only; dropped elsewhere, where the schema has no place for it.
        root_hash: 2.1 only; dropped elsewhere.

    Raises:
        InputError: *version* has no such use.
    """
    _check_use(version, use)
    payload: dict[str, object] = {"csr": csr}
    _put_type(payload, version, use)
    if version is OcppVersion.V21:
        if request_id is not None:
            payload["requestId"] = request_id
        if root_hash is not None:
            payload["hashRootCertificate"] = dict(root_hash)
    return _wrapped(version, use, "SignCertificate", payload, dialect)


def parse_sign_certificate(version: OcppVersion, payload: Mapping[str, object]) -> CsrReceived:
    """Read a SignCertificate request that has passed its schema, or the DataTransfer of 1.6 that has one inside.

    Raises:
        OcppRefusal: the DataTransfer has something else inside, or a request for another use than V2G.

    >>> parse_sign_certificate(OcppVersion.V201, {"csr": "x"}).use
    <CertificateUse.COMBINED: 'Combined'>
    """
    transfer = _transfer(version, "vendorId" in payload, payload)
    if transfer is not None:
        use = _transferred_use(transfer, "SignCertificate")
        return CsrReceived(use=use, csr=_text(transfer.payload, "csr"), dialect=transfer.dialect)
    root_hash = payload.get("hashRootCertificate")
    return CsrReceived(
        use=_read_type(version, payload) or CertificateUse.COMBINED,
        csr=_text(payload, "csr"),
        request_id=_integer(payload, "requestId"),
        root_hash=_hash_data(root_hash) if isinstance(root_hash, Mapping) else None,
    )


def build_certificate_signed(
    version: OcppVersion,
    use: CertificateUse,
    chain: str,
    *,
    request_id: int | None = None,
    dialect: Dialect = Dialect.OCA,
) -> WireCall:
    """Return the CertificateSigned call for an issued certificate.

    Args:
        chain: PEM, leaf first, without the root.
        request_id: as the CSR carried it (2.1, A02.FR.25); dropped in versions without the field.
        dialect: of the DataTransfer that the CSR for a V2G leaf came in, in 1.6.

    Raises:
        InputError: *version* has no such use, or the dialect no room for the chain.
        OcppRefusal: the chain is longer than the wire allows; nothing may be sent.
    """
    _check_use(version, use)
    limit = max_chain_characters(version)
    if len(chain) > limit:
        raise OcppRefusal(
            f"the certificate chain has {len(chain)} characters, OCPP allows {limit}",
            answer=StatusAnswer("Rejected", "TooLargeElement"),
            why="CertificateSigned.certificateChain is limited by its schema",
            fix="issue from a CA with fewer or smaller sub-CA certificates",
        )
    payload: dict[str, object] = {"certificateChain": chain}
    _put_type(payload, version, use)
    if version is OcppVersion.V21 and request_id is not None:
        payload["requestId"] = request_id
    return _wrapped(version, use, "CertificateSigned", payload, dialect)


def parse_certificate_signed(version: OcppVersion, payload: Mapping[str, object]) -> SignedReceived:
    """Read a CertificateSigned request that has passed its schema, or the DataTransfer of 1.6 that has one inside.

    Raises:
        OcppRefusal: the DataTransfer has something else inside, or a certificate for another use than V2G.
    """
    transfer = _transfer(version, "vendorId" in payload, payload)
    if transfer is not None:
        use = _transferred_use(transfer, "CertificateSigned")
        return SignedReceived(use, _text(transfer.payload, "certificateChain"))
    return SignedReceived(
        use=_read_type(version, payload),
        chain=_text(payload, "certificateChain"),
        request_id=_integer(payload, "requestId"),
    )


def root_use_name(version: OcppVersion, use: RootUse) -> str:
    """Return how *version* spells a root use.

    Raises:
        InputError: *version* has none such (1.6 knows CSMS and manufacturer roots, OEM roots came with 2.1).
    """
    name = _ROOTS[version].get(use)
    if name is None:
        known = ", ".join(known.value for known in _ROOTS[version])
        raise InputError(f"{version.value} has no root use {use.value}", fix=f"one of: {known}")
    return name


def parse_root_use(version: OcppVersion, name: str) -> RootUse:
    """Return the root use that *version* calls *name*.

    Raises:
        InputError: it has none such (a common slip is CSMSRootCertificate in 1.6).
    """
    for use, spelled in _ROOTS[version].items():
        if spelled == name:
            return use
    raise InputError(f"{version.value} has no root certificate type of this name", why=f"name {name[:50]!r}")


def parse_boot_notification(version: OcppVersion, payload: Mapping[str, object]) -> BootReceived:
    """Read a BootNotification request that has passed its schema."""
    if version is OcppVersion.V16:
        box = payload.get("chargeBoxSerialNumber")
        return BootReceived(
            serial_number=_optional_text(payload, "chargePointSerialNumber"),
            model=_text(payload, "chargePointModel"),
            vendor=_text(payload, "chargePointVendor"),
            firmware_version=_optional_text(payload, "firmwareVersion"),
            other_serial_numbers=(box,) if isinstance(box, str) and box else (),
        )
    station = payload.get("chargingStation")
    if not isinstance(station, Mapping):
        raise _broken("chargingStation")
    return BootReceived(
        serial_number=_optional_text(station, "serialNumber"),
        model=_text(station, "model"),
        vendor=_text(station, "vendorName"),
        firmware_version=_optional_text(station, "firmwareVersion"),
    )


def unwrap_answer(call: WireCall, answer: Mapping[str, object]) -> Mapping[str, object]:
    """Return an answer to *call*; where that was a DataTransfer, the answer inside.

    A peer that does not know the DataTransfer has not acted on it: its status is NotSupported then, as a CALLERROR's
    code would be.
    """
    if call.action != "DataTransfer":
        return answer
    inner = pnc_transfer.read_transfer_answer(str(call.payload.get("messageId")), answer)
    if inner is not None:
        return inner
    unknown = read_status(answer) in ("UnknownVendorId", "UnknownMessageId")
    return {"status": RpcErrorCode.NOT_SUPPORTED.value if unknown else "Rejected"}


def read_status(payload: Mapping[str, object]) -> str:
    """Return the ``status`` member of an answer, empty when it has none."""
    status = payload.get("status")
    return status if isinstance(status, str) else ""


def status_answer(version: OcppVersion, answer: StatusAnswer) -> dict[str, object]:
    """Return the payload of an answer that is a status; 1.6 has no statusInfo, so only the status goes there."""
    payload: dict[str, object] = {"status": answer.status}
    if version is not OcppVersion.V16 and answer.reason_code:
        info: dict[str, object] = {"reasonCode": answer.reason_code[:20]}
        if answer.additional_info:
            info["additionalInfo"] = answer.additional_info[:512]
        payload["statusInfo"] = info
    return payload


def _check_use(version: OcppVersion, use: CertificateUse) -> None:
    if not supports_use(version, use):
        raise InputError(
            f"{version.value} has no {use.value}",
            why="1.6 knows the station's own and, by DataTransfer, V2G leaves; V2G20Certificate came with 2.1",
        )


def _wrapped(
    version: OcppVersion, use: CertificateUse, action: str, payload: dict[str, object], dialect: Dialect = Dialect.OCA
) -> WireCall:
    """Return the call itself, or in 1.6 the DataTransfer that has it inside."""
    if words_of(version, use) is version:
        return WireCall(action, payload)
    return WireCall("DataTransfer", pnc_transfer.wrap(action, payload, dialect))


def _transfer(version: OcppVersion, is_one: bool, payload: Mapping[str, object]) -> Transfer | None:
    return pnc_transfer.read_transfer(payload) if is_one and version is OcppVersion.V16 else None


def _transferred_use(transfer: Transfer, message: str) -> CertificateUse:
    if transfer.message != message or transfer.payload.get("certificateType") != CertificateUse.V2G.value:
        raise OcppRefusal(
            f"the DataTransfer has no {message} for a V2G certificate inside",
            answer=StatusAnswer("Rejected", "UnsupportedRequest", "V2GCertificate alone travels in a DataTransfer"),
            why="1.6 has messages of its own for the station's certificate",
        )
    return CertificateUse.V2G


def _put_type(payload: dict[str, object], version: OcppVersion, use: CertificateUse) -> None:
    if words_of(version, use) is not OcppVersion.V16 and use is not CertificateUse.COMBINED:
        payload["certificateType"] = use.value


def _read_type(version: OcppVersion, payload: Mapping[str, object]) -> CertificateUse | None:
    if version is OcppVersion.V16:
        return CertificateUse.CHARGING_STATION
    name = payload.get("certificateType")
    return CertificateUse(name) if isinstance(name, str) else None


def _hash_data(value: Mapping[str, object]) -> dict[str, str]:
    return {name: text for name, text in value.items() if isinstance(text, str)}


def _text(payload: Mapping[str, object], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str):
        raise _broken(name)
    return value


def _optional_text(payload: Mapping[str, object], name: str) -> str | None:
    """Return a text member; an empty one counts as absent (OCPP wants empty fields left out)."""
    value = payload.get(name)
    return value if isinstance(value, str) and value else None


def _integer(payload: Mapping[str, object], name: str) -> int | None:
    value = payload.get(name)
    return value if isinstance(value, int) else None


def _broken(name: str) -> OcppRefusal:
    return OcppRefusal(
        f"{name} is missing or of the wrong type",
        answer=CallErrorAnswer(RpcErrorCode.TYPE_CONSTRAINT_VIOLATION, f"{name} is missing or of the wrong type"),
        why="the payload did not go through its schema",
    )
