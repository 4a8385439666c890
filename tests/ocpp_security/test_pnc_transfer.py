"""Plug & Charge in the DataTransfer of 1.6: both dialects carry what 2.0.1 says, and nothing else is let in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chargepki.ocpp_security.pnc_transfer import (
    OLDER_VENDOR,
    VENDOR,
    Dialect,
    is_plug_and_charge,
    read_transfer,
    read_transfer_answer,
    wrap,
    wrap_answer,
)
from chargepki.pki.errors import InputError
from chargepki.pki.pem import to_pem
from testkit.chains import make

CHAIN = to_pem("CERTIFICATE", make("leaf", ca=False, nth=1).der) + to_pem("CERTIFICATE", make("sub", nth=2).der)
HASH = {
    "hashAlgorithm": "SHA256", "issuerNameHash": "aa", "issuerKeyHash": "bb", "serialNumber": "1",
    "responderURL": "http://x",
}  # fmt: skip
MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("Authorize", {"idToken": {"idToken": "DE8AAA1B2C3D4E", "type": "eMAID"}, "iso15118CertificateHashData": [HASH]}),
    ("GetCertificateStatus", {"ocspRequestData": HASH}),
    ("SignCertificate", {"csr": "-----BEGIN", "certificateType": "V2GCertificate"}),
    ("CertificateSigned", {"certificateChain": CHAIN, "certificateType": "V2GCertificate"}),
    ("TriggerMessage", {"requestedMessage": "SignV2GCertificate"}),
]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(("message", "payload"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_what_is_wrapped_is_read_back_in_the_words_of_2_0_1(
    message: str, payload: dict[str, Any], dialect: Dialect
) -> None:
    wrapped = wrap(message, payload, dialect)
    assert (wrapped["vendorId"], wrapped["messageId"], is_plug_and_charge(wrapped)) == (dialect.value, message, True)
    found = read_transfer(wrapped)
    assert found is not None and (found.dialect, found.message, found.payload) == (dialect, message, payload)


def test_the_older_dialect_is_written_as_has_to_be_has_specified_it() -> None:
    written = {name: json.loads(wrap(name, payload, Dialect.OLDER)["data"]) for name, payload in MESSAGES}
    assert set(written["Authorize"]) == {"idToken", "15118CertificateHashData"}
    assert written["SignCertificate"] == {"csr": "-----BEGIN", "typeOfCertificate": "V2GCertificate"}
    assert set(written["CertificateSigned"]) == {"cert", "typeOfCertificate"}
    assert bytes.fromhex(written["CertificateSigned"]["cert"])[:2] == b"\x30\x82"
    # The address of a responder may be left out there.
    bare = {name: value for name, value in HASH.items() if name != "responderURL"}
    for name, data in (
        ("GetCertificateStatus", {"ocspRequestData": bare}),
        ("Authorize", {"idToken": {"idToken": "x", "type": "eMAID"}, "15118CertificateHashData": [bare]}),
    ):
        found = read_transfer({"vendorId": OLDER_VENDOR, "messageId": name, "data": json.dumps(data)})
        assert found is not None and '"responderURL": ""' in json.dumps(found.payload)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [("Accepted", "Accepted"), ("CertChainError", "CertificateRevoked"), ("CertificateRevoked", "CertificateRevoked")],
)
def test_the_older_dialect_has_two_words_for_a_certificate(status: str, wanted: str) -> None:
    found = read_transfer(wrap(*MESSAGES[0], Dialect.OLDER))
    assert found is not None
    info = {"status": "Invalid", "personalMessage": {"format": "UTF8", "content": "x"}}
    answer = wrap_answer(found, {"idTokenInfo": info, "certificateStatus": status})
    assert json.loads(answer["data"]) == {"idTokenInfo": {"status": "Invalid"}, "certificateStatus": wanted}
    assert read_transfer_answer("Authorize", answer) is not None


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("Authorize", {"idToken": {"idToken": "x", "type": "eMAID"}, "15118CertificateHashData": {}}),
        ("Authorize", {"idToken": 7, "15118CertificateHashData": [7]}),
        ("GetCertificateStatus", {}),
        ("GetCertificateStatus", {"ocspRequestData": []}),
        ("SignCertificate", {"csr": 7}),
        ("SignCertificate", {"csr": "x", "typeOfCertificate": "Other"}),
        ("CertificateSigned", {"cert": "zz", "typeOfCertificate": "V2GCertificate"}),
        ("CertificateSigned", {"cert": "3082ffff00", "typeOfCertificate": "V2GCertificate"}),
        ("CertificateSigned", {"cert": "30" * 5001, "typeOfCertificate": "V2GCertificate"}),
        ("CertificateSigned", {"cert": 7, "typeOfCertificate": "V2GCertificate"}),
        ("TriggerMessage", {"requestedMessage": ["x"]}),
        ("TriggerMessage", []),
    ],
)
def test_data_of_the_older_dialect_that_are_none_are_one_error(message: str, data: object) -> None:
    with pytest.raises(InputError):
        read_transfer({"vendorId": OLDER_VENDOR, "messageId": message, "data": json.dumps(data)})


def test_what_has_no_place_in_a_dialect_is_not_sent() -> None:
    with pytest.raises(InputError, match="hash data alone"):
        wrap("Authorize", {"idToken": {"idToken": "x", "type": "eMAID"}, "certificate": CHAIN}, Dialect.OLDER)
    with pytest.raises(InputError, match="hexadecimal characters"):
        wrap("CertificateSigned", {"certificateChain": CHAIN * 9, "certificateType": "V2GCertificate"}, Dialect.OLDER)
    with pytest.raises(InputError, match="not spoken"):
        wrap("InstallCertificate", {}, Dialect.OLDER)
    for vendor, message in (("other", "Authorize"), (VENDOR, "Reset"), (OLDER_VENDOR, "InstallCertificate")):
        assert read_transfer({"vendorId": vendor, "messageId": message, "data": "{}"}) is None
