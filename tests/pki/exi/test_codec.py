"""EXI of certificate messages: golden vectors, identity, order of fields, and what malformed streams are told."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chargepki.pki.exi import (
    MAX_EXI_BYTES,
    ExiError,
    Message,
    MessageSet,
    Tree,
    Value,
    decode,
    encode,
    from_json,
    to_json,
)
from testkit.effort import CAMPAIGN
from testkit.exi_fuzz import ExiCampaign, make_mutant
from testkit.exi_messages import messages
from testkit.exi_samples import samples
from testkit.layout import ROOT

VECTORS = ROOT / "fixtures" / "exi"
ENTRIES = tomllib.loads((VECTORS / "manifest.toml").read_text(encoding="utf-8"))["vector"]
NAMES = sorted({entry["file"].rpartition(".")[0] for entry in ENTRIES})

OF_2, OF_20, SIGNATURE = MessageSet.ISO15118_2, MessageSet.ISO15118_20, MessageSet.XMLDSIG


def sample(name: str, message_set: MessageSet = OF_2) -> Message:
    return next(each for each in samples() if (each.name, each.message_set) == (name, message_set))


# -- golden vectors ----------------------------------------------------------------------------------------------------


def test_every_vector_is_in_the_manifest_with_its_digest() -> None:
    files = {path.name for path in VECTORS.iterdir() if path.suffix in {".exi", ".json"}}
    assert files == {entry["file"] for entry in ENTRIES}
    for entry in ENTRIES:
        assert hashlib.sha256((VECTORS / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]
        assert entry["source"] and entry["licence"] and entry["clause"] and entry["why"] and entry["expect"] == "accept"


@pytest.mark.parametrize("name", NAMES)
def test_golden_vector_is_read_and_written(name: str) -> None:
    stream = (VECTORS / f"{name}.exi").read_bytes()
    document = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    message = decode(stream)
    assert to_json(message) == document
    assert encode(message) == stream
    assert from_json(document) == message


# -- identity ----------------------------------------------------------------------------------------------------------


@settings(max_examples=5000 if CAMPAIGN else 60, suppress_health_check=list(HealthCheck), database=None)
@given(message=messages(), data=st.data())
def test_every_message_is_read_as_it_was_written(message: Message, data: st.DataObject) -> None:
    stream = encode(message)
    assert decode(stream, message_set=message.message_set, name=message.name) == message
    assert from_json(to_json(message), message_set=message.message_set).tree == message.tree
    keys = data.draw(st.permutations(list(message.tree)))
    shuffled: Tree = {key: message.tree[key] for key in keys}
    assert encode(Message(message.message_set, message.name, shuffled, message.open_lists)) == stream


def test_a_flipped_bit_is_another_message_or_none() -> None:
    """No two streams are read as the same message, so that what a signature covers is never in doubt."""
    stream = encode(sample("CertificateInstallationReq"))
    seen = {json.dumps(to_json(decode(stream)))}
    for bit in range(0, 8 * len(stream), 3):
        changed = bytearray(stream)
        changed[bit // 8] ^= 0x80 >> bit % 8
        try:
            found = json.dumps(to_json(decode(bytes(changed))))
        except ExiError:
            continue
        assert found not in seen
        seen.add(found)


# -- malformed streams -------------------------------------------------------------------------------------------------


def refused(stream: bytes, *, limits: bool = True, message_set: MessageSet | None = None) -> ExiError:
    with pytest.raises(ExiError) as caught:
        decode(stream, limits=limits, message_set=message_set)
    return caught.value


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "not with nothing"),
        (b"\x01\xfe\x80\x01\x00\x00\x00\x05\x80\x98\x02\x00\x44", "without the V2GTP header"),
        (b"$EXI\x80", "not with 0x24"),
        (b"\x80", "no message about certificates"),
        (bytes.fromhex("808c"), "SessionSetupReq"),
        (b"\x80" + bytes(MAX_EXI_BYTES), "at most 65536"),
    ],
)
def test_what_is_no_stream_of_ours_is_told_so(stream: bytes, words: str) -> None:
    assert words in str(refused(stream))


def test_an_error_names_the_element_and_the_bit() -> None:
    stream = encode(sample("CertificateInstallationReq"))
    error = refused(stream[:100])
    assert error.path == ("CertificateInstallationReq", "OEMProvisioningCert")
    assert error.bit_offset is not None and 0 < error.bit_offset < 800
    assert f"CertificateInstallationReq/OEMProvisioningCert, bit {error.bit_offset}: 555 bytes are announced" in str(
        error
    )


@pytest.mark.parametrize("message", samples(), ids=lambda each: f"{each.message_set}-{each.name}")
def test_a_stream_cut_anywhere_is_refused(message: Message) -> None:
    stream = encode(message)
    for length in [*range(min(60, len(stream))), *range(60, len(stream), 97), len(stream) - 1]:
        refused(stream[:length], message_set=message.message_set)


def test_bytes_and_bits_after_the_message_are_refused() -> None:
    stream = encode(sample("V2G_Message"))
    assert "1 more bytes follow" in str(refused(stream + b"\0"))
    assert "not zero" in str(refused(stream[:-1] + bytes([stream[-1] | 1])))


def test_a_second_element_after_the_signed_one_is_refused() -> None:
    # DHpublickey with Id "a" and one byte; then, in place of the end of the fragment, another DHpublickey.
    bits = "10000000" + "00101101" + "0" + "00000011" + "01100001" + "0" + "00000001" + "00000000" + "0" + "00101101"
    error = refused(int(bits.ljust(64, "0"), 2).to_bytes(8, "big"))
    assert "more elements follow the signed one" in str(error)
    assert error.bit_offset == len(bits) - 8


def test_a_number_written_longer_than_needed_is_refused() -> None:
    # DHpublickey: code 0x2d, Id "a", then a length of 1 written in two octets.
    bits = "10000000" + "00101101" + "0" + "00000011" + "01100001" + "0" + "10000001" + "00000000"
    stream = int(bits.ljust(72, "0"), 2).to_bytes(9, "big")
    assert "longer than it needs to be" in str(refused(stream))


def test_a_reference_to_the_string_table_is_refused() -> None:
    bits = "10000000" + "00101101" + "0" + "00000000"
    assert "string table" in str(refused(int(bits.ljust(64, "0"), 2).to_bytes(8, "big")))


def test_other_messages_of_the_schema_are_named() -> None:
    stream = encode(sample("V2G_Message"))
    header = encode(Message(OF_2, "V2G_Message", {**sample("V2G_Message").tree, "Header": {"SessionID": b"\1"}}))
    assert decode(header).tree["Header"] == {"SessionID": b"\1"}
    # The event code of the body element, six bits after the end of a header without signature: SessionSetupReq is 29.
    bits = bin(int.from_bytes(header, "big"))[2:]
    place = bits.index("000101", 8 + 7 + 1 + 1 + 1 + 16)
    other = bits[:place] + "011101" + bits[place + 6 :]
    error = refused(int(other, 2).to_bytes(len(header), "big"))
    assert error.path == ("V2G_Message", "Body", "SessionSetupReq")
    assert "never carry this" in str(error)
    assert len(stream) > len(header)


def test_limits_of_the_schema_hold_unless_ignored() -> None:
    tree = {**sample("CertificateInstallationReq").tree, "OEMProvisioningCert": bytes(801)}
    message = Message(OF_2, "CertificateInstallationReq", tree)
    with pytest.raises(ExiError, match="801 bytes where the schema allows at most 800"):
        encode(message)
    stream = encode(message, limits=False)
    error = refused(stream)
    assert error.path[-1] == "OEMProvisioningCert" and "at most 800" in str(error)
    assert decode(stream, limits=False) == message


def test_both_ways_to_write_an_empty_value_are_read() -> None:
    tree: Tree = {"Id": "a", "value": b""}
    # The end of the element in place of the value, as EXIficient writes it; and a value of no bytes, as C codecs do.
    assert encode(Message(OF_2, "DHpublickey", tree)).hex() == "802d01b0c7a0"
    assert decode(bytes.fromhex("802d01b0c7a0")).tree == tree
    assert decode(bytes.fromhex("802d01b0801e80")).tree == tree


def test_only_the_lists_of_15118_2_are_written_in_two_ways() -> None:
    for message in samples():
        if message.message_set is not OF_2:
            assert encode(Message(message.message_set, message.name, message.tree, open_lists=True)) == encode(message)


def test_a_full_list_of_roots_ends_with_a_bit_more_where_no_maximum_is_known() -> None:
    root: Tree = {"X509IssuerName": "CN=R", "X509SerialNumber": 1}
    for count, is_written in ((19, True), (20, True), (21, False)):
        listed: list[Value] = [root for _ in range(count)]
        tree: Tree = {
            **sample("CertificateInstallationReq").tree,
            "ListOfRootCertificateIDs": {"RootCertificateID": listed},
        }
        for is_open in (False, True):
            message = Message(OF_2, "CertificateInstallationReq", tree, is_open)
            if not is_written:
                with pytest.raises(ExiError, match="RootCertificateID"):
                    encode(message)
                continue
            assert decode(encode(message)) == Message(OF_2, message.name, tree, is_open and count == 20)
            assert encode(decode(encode(message))) == encode(message)


def test_lengths_that_the_text_forbids_to_pad_are_accepted() -> None:
    """The schema says 133 and 206 bytes; V2G20-2495 and V2G20-2521 forbid the padding."""
    data = dict(sample("SignedInstallationData", OF_20).tree)
    del data["SECP521_EncryptedPrivateKey"]
    data |= {"ECDHCurve": "X448", "DHPublicKey": bytes(56), "X448_EncryptedPrivateKey": bytes(84)}
    message = Message(OF_20, "SignedInstallationData", data)
    assert decode(encode(message)) == message
    with pytest.raises(ExiError, match="exactly 84"):
        encode(Message(OF_20, "SignedInstallationData", {**data, "X448_EncryptedPrivateKey": bytes(85)}))


# -- messages that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Id": None}, "CertificateInstallationReq: Id is missing"),
        ({"Id": 5}, "CertificateInstallationReq/Id: text is wanted, not int"),
        ({"OEMProvisioningCert": "AQID"}, "bytes is wanted, not str"),
        ({"Colour": "red"}, "'Colour' cannot stand here"),
        ({"ListOfRootCertificateIDs": {"RootCertificateID": []}}, "RootCertificateID is missing"),
        ({"ListOfRootCertificateIDs": {"RootCertificateID": {}}}, "a list is wanted, not dict"),
        ({"ListOfRootCertificateIDs": b""}, "an object with its fields is wanted"),
        ({"Id": "\0"}, "U+0000 is no character of XML"),
        ({"Id": "\ud800"}, "U+D800 is no character of XML"),
    ],
)
def test_a_message_that_does_not_fit_the_schema_is_refused(changes: dict[str, Value | None], words: str) -> None:
    merged = {**sample("CertificateInstallationReq").tree, **changes}
    tree: Tree = {name: value for name, value in merged.items() if value is not None}
    with pytest.raises(ExiError) as caught:
        encode(Message(OF_2, "CertificateInstallationReq", tree))
    assert words in str(caught.value)


def test_two_of_a_choice_are_refused() -> None:
    tree = {**sample("SignedInstallationData", OF_20).tree, "X448_EncryptedPrivateKey": bytes(84)}
    with pytest.raises(ExiError, match="beside another choice"):
        encode(Message(OF_20, "SignedInstallationData", tree))


def test_more_than_the_schema_allows_are_refused() -> None:
    chain: Tree = {"Certificate": b"a", "SubCertificates": {"Certificate": [b"a"] * 5}}
    with pytest.raises(ExiError, match="one too many"):
        encode(Message(OF_2, "ContractSignatureCertChain", chain))


@pytest.mark.parametrize("number", [1 << 1025, -(1 << 1025)])
def test_an_absurd_number_is_refused(number: int) -> None:
    root: Tree = {"RootCertificateID": [{"X509IssuerName": "CN=R", "X509SerialNumber": number}]}
    tree = {**sample("CertificateInstallationReq").tree, "ListOfRootCertificateIDs": root}
    with pytest.raises(ExiError, match="at most 1024"):
        encode(Message(OF_2, "CertificateInstallationReq", tree))


def test_an_unknown_root_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ExiError, match="known are: SignedInfo"):
        encode(Message(SIGNATURE, "Manifest", {}))


# -- fuzzing -----------------------------------------------------------------------------------------------------------


def test_mutants_are_answered_in_bounds() -> None:
    campaign = ExiCampaign()
    for number in range(300):
        campaign.try_stream(make_mutant(15118, number), f"number {number}")
    assert not campaign.failures, campaign.report()
    assert campaign.answers["refused"] > 100 and campaign.answers["read"] > 40


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_long_run_of_mutants_is_answered(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    campaign = ExiCampaign()
    tried = campaign.run(seed=2, cpu_seconds=300)
    with capsys.disabled():
        print(f"\n{tried} mutants: {campaign.report()}")
    assert not campaign.failures, campaign.report()
