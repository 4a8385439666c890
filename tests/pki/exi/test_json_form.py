"""Messages as JSON: what is read, and what is refused with its place."""

from __future__ import annotations

import pytest

from chargepki.pki.exi import ExiError, MessageSet, from_json, to_json
from testkit.exi_samples import samples


def test_a_serial_number_is_text_so_that_no_reader_rounds_it() -> None:
    request = next(each for each in samples() if each.name == "CertificateInstallationReq")
    document = to_json(request)["CertificateInstallationReq"]
    assert isinstance(document, dict)
    number = document["ListOfRootCertificateIDs"]["RootCertificateID"][0]["X509SerialNumber"]
    assert isinstance(number, str) and int(number) > 1 << 64
    document["ListOfRootCertificateIDs"]["RootCertificateID"][0]["X509SerialNumber"] = int(number)
    assert from_json({"CertificateInstallationReq": document}) == request


def test_the_set_of_a_message_follows_from_its_name_and_header() -> None:
    for message in samples():
        assert from_json(to_json(message)).message_set is message.message_set


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "one JSON object with one key"),
        ([], "one JSON object with one key"),
        ({"a": 1, "b": 2}, "one JSON object with one key"),
        ({"SessionSetupReq": {}}, "'SessionSetupReq' is no message about certificates"),
        ({"eMAID": "DE"}, "an object with its fields is wanted"),
        ({"V2G_Message": {"Header": {"SessionID": "0g"}}}, "V2G_Message/Header/SessionID: this is no hexadecimal"),
        ({"DHpublickey": {"Id": "a", "value": "A"}}, "DHpublickey/value: this is no base64"),
        ({"DHpublickey": {"Id": None, "value": ""}}, "DHpublickey/Id: null is no value"),
        ({"DHpublickey": {"Id": True, "value": ""}}, "bool is no value"),
        ({"DHpublickey": {"Id": 1.5, "value": ""}}, "float is no value"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(document: object, words: str) -> None:
    with pytest.raises(ExiError) as caught:
        from_json(document)
    assert words in str(caught.value)


@pytest.mark.parametrize("number", ["", "-", "1.0", "0x10", "٣", "9" * 401, "1_0", " 1"])
def test_only_decimal_digits_are_a_number(number: str) -> None:
    root = {"X509IssuerName": "CN=R", "X509SerialNumber": number}
    tree = {"Id": "a", "OEMProvisioningCert": "", "ListOfRootCertificateIDs": {"RootCertificateID": [root]}}
    with pytest.raises(ExiError, match="no whole number"):
        from_json({"CertificateInstallationReq": tree}, message_set=MessageSet.ISO15118_2)
