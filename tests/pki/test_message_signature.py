"""Signatures over elements of messages: what they cover, and that nothing else passes."""

from __future__ import annotations

import copy
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chargepki.pki.exi import Message, MessageSet, Tree, decode, encode
from chargepki.pki.message_signature import SignatureRefused, sign_elements, signed_elements, verify_elements
from testkit.exi_samples import samples
from testkit.foreign import missing

P256, P521 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
MESSAGES = [each for each in samples() if each.name == "V2G_Message" or "Header" in each.tree]
ED = ed448.Ed448PrivateKey.generate()


def key_for(message: Message) -> ec.EllipticCurvePrivateKey:
    return P256 if message.message_set is MessageSet.ISO15118_2 else P521


def name_of(message: Message) -> str:
    body = message.tree.get("Body")
    return f"{message.message_set}-{next(iter(body)) if isinstance(body, dict) else message.name}"


def signed(message: Message) -> Message:
    """Return the whole message with its signature in the header, after a journey as EXI."""
    header = message.tree["Header"]
    assert isinstance(header, dict)
    signature = sign_elements(signed_elements(message), key_for(message))
    tree: Tree = {**message.tree, "Header": {**header, "Signature": signature}}
    return decode(encode(Message(message.message_set, message.name, tree)))


def signature_of(message: Message) -> Tree:
    header = message.tree["Header"]
    assert isinstance(header, dict)
    signature = header["Signature"]
    assert isinstance(signature, dict)
    return signature


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_signed_message_is_verified_after_its_journey(message: Message) -> None:
    received = signed(message)
    key = key_for(message)
    elements = signed_elements(received)
    verify_elements(elements, signature_of(received), key.public_key())
    assert len(elements) == (4 if name_of(message).startswith("iso15118-2-") and "Res" in name_of(message) else 1)
    other = ec.generate_private_key(key.curve)
    with pytest.raises(SignatureRefused, match="not made with this key"):
        verify_elements(elements, signature_of(received), other.public_key())


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_any_flipped_byte_of_a_signed_element_is_refused(message: Message) -> None:
    received = signed(message)
    signature, public = signature_of(received), key_for(message).public_key()
    elements = signed_elements(received)
    for place, element in enumerate(elements):
        for path, value in leaves(element.tree):
            for changed in changes_of(value):
                tree = copy.deepcopy(element.tree)
                put(tree, path, changed)
                spoilt = Message(element.message_set, element.name, tree)
                with pytest.raises(SignatureRefused):
                    verify_elements([*elements[:place], spoilt, *elements[place + 1 :]], signature, public)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in leaves(each, (*path, key))]
    if isinstance(value, list):
        return [found for place, each in enumerate(value) for found in leaves(each, (*path, place))]
    return [(path, value)]


def put(tree: Any, path: tuple[Any, ...], value: object) -> None:
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = value


def changes_of(value: Any) -> list[Any]:
    """Return the value with each of some bytes flipped, or another value."""
    if isinstance(value, bytes):
        places = range(0, len(value), 101)
        return [value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :] for place in places]
    if isinstance(value, int):
        return [value ^ 1]
    return [{"SECP521": "X448"}.get(value, value[:-1] + ("0" if value[-1] != "0" else "1"))]


def test_an_independent_verification_agrees(tmp_path: Path) -> None:
    """Digests by hashlib, the signature by openssl over the bytes of SignedInfo, r and s turned into DER."""
    message = next(each for each in MESSAGES if name_of(each) == "iso15118-2-CertificateInstallationRes")
    elements = signed_elements(message)
    signature: Any = sign_elements(elements, P256)
    info = encode(Message(MessageSet.XMLDSIG, "SignedInfo", signature["SignedInfo"]))
    for element, reference in zip(elements, signature["SignedInfo"]["Reference"], strict=True):
        assert reference["DigestValue"] == hashlib.sha256(encode(element)).digest()
        assert reference["URI"].removeprefix("#") == element.tree["Id"]
    raw = signature["SignatureValue"]["value"]
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    P256.public_key().verify(der, info, ec.ECDSA(hashes.SHA256()))
    if reason := missing("openssl", "openssl"):
        pytest.skip(reason)
    files = {"signature": der, "info": info}
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    files["key"] = P256.public_key().public_bytes(encoding, form)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature", "info"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "Verified OK\n"


def test_ed448_signs_messages_of_20_and_both_names_of_it_are_read() -> None:
    message = next(each for each in MESSAGES if name_of(each) == "iso15118-20-CertificateInstallationRes")
    elements = signed_elements(message)
    signature: Any = sign_elements(elements, ED)
    verify_elements(elements, signature, ED.public_key())
    assert signature["SignedInfo"]["Reference"][0]["DigestValue"] == hashlib.shake_256(encode(elements[0])).digest(64)
    info = signature["SignedInfo"]
    info["SignatureMethod"]["Algorithm"] = "http://www.w3.org/2021/04/xmldsig-more#eddsa-ed448"
    signature["SignatureValue"]["value"] = ED.sign(encode(Message(MessageSet.XMLDSIG, "SignedInfo", info)))
    verify_elements(elements, signature, ED.public_key())


def drop_reference(signature: Any) -> None:
    signature["SignedInfo"]["Reference"].pop()


def double_reference(signature: Any) -> None:
    references = signature["SignedInfo"]["Reference"]
    references[1] = copy.deepcopy(references[0])


def strange_uri(signature: Any) -> None:
    signature["SignedInfo"]["Reference"][0]["URI"] = "#id99"


def no_uri(signature: Any) -> None:
    del signature["SignedInfo"]["Reference"][0]["URI"]


def two_transforms(signature: Any) -> None:
    signature["SignedInfo"]["Reference"][0]["Transforms"]["Transform"] *= 2


def no_transforms(signature: Any) -> None:
    del signature["SignedInfo"]["Reference"][0]["Transforms"]


def other_transform(signature: Any) -> None:
    signature["SignedInfo"]["Reference"][0]["Transforms"]["Transform"][0]["Algorithm"] = "http://example.org/c14n"


def weak_digest(signature: Any) -> None:
    signature["SignedInfo"]["Reference"][0]["DigestMethod"]["Algorithm"] = "http://www.w3.org/2000/09/xmldsig#sha1"


def weak_signature(signature: Any) -> None:
    signature["SignedInfo"]["SignatureMethod"]["Algorithm"] = "http://www.w3.org/2000/09/xmldsig#hmac-sha1"


def other_canonical_form(signature: Any) -> None:
    signature["SignedInfo"]["CanonicalizationMethod"]["Algorithm"] = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"


def with_type(signature: Any) -> None:
    signature["SignedInfo"]["Reference"][0]["Type"] = "x"


def with_id(signature: Any) -> None:
    signature["SignedInfo"]["Id"] = "s"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_reference, "3 elements are signed where"),
        (double_reference, "or one of them twice"),
        (strange_uri, "names none of the elements"),
        (no_uri, "names none of the elements"),
        (two_transforms, "exactly one transform"),
        (no_transforms, "exactly one transform"),
        (other_transform, "Transform is not"),
        (weak_digest, "DigestMethod is not"),
        (weak_signature, "SignatureMethod is not"),
        (other_canonical_form, "CanonicalizationMethod is not"),
        (with_type, "an Id or a Type"),
        (with_id, "has an Id"),
    ],
)
def test_a_signature_that_says_something_else_is_refused_although_it_was_made_so(
    change: Callable[[Any], None], words: str
) -> None:
    """The signer itself signs the deviating SignedInfo, so that only what it says can be the reason."""
    message = next(each for each in MESSAGES if name_of(each) == "iso15118-2-CertificateInstallationRes")
    elements = signed_elements(message)
    signature: Any = sign_elements(elements, P256)
    change(signature)
    with pytest.raises(SignatureRefused, match=words):
        verify_elements(elements, signature, P256.public_key())


@pytest.mark.parametrize("value", [b"", bytes(64), b"\xff" * 64, bytes(63), bytes(65), "x", None])
def test_a_signature_value_that_cannot_be_one_is_refused(value: object) -> None:
    elements = signed_elements(MESSAGES[0])
    signature: Any = sign_elements(elements, P256)
    signature["SignatureValue"] = {"value": value}
    with pytest.raises(SignatureRefused):
        verify_elements(elements, signature, P256.public_key())


def test_keys_of_another_standard_are_refused() -> None:
    of_2, of_20 = signed_elements(MESSAGES[0]), signed_elements(MESSAGES[-1])
    for elements, key in ((of_2, P521), (of_2, ED), (of_20, P256), (of_2, ec.generate_private_key(ec.SECP384R1()))):
        with pytest.raises(SignatureRefused, match="are signed with"):
            sign_elements(elements, key)
    with pytest.raises(SignatureRefused, match="nothing to be signed"):
        sign_elements([], P256)


def test_elements_without_an_id_or_with_the_same_are_refused() -> None:
    message = next(each for each in MESSAGES if name_of(each) == "iso15118-2-CertificateInstallationRes")
    elements = signed_elements(message)
    bare = Message(elements[0].message_set, elements[0].name, {**elements[0].tree, "Id": "id2"})
    with pytest.raises(SignatureRefused, match="has the Id of"):
        sign_elements([bare, *elements[1:]], P256)
    without = {key: value for key, value in elements[0].tree.items() if key != "Id"}
    with pytest.raises(SignatureRefused, match="has no Id"):
        sign_elements([Message(elements[0].message_set, elements[0].name, without), *elements[1:]], P256)


def test_a_message_without_signed_elements_is_refused() -> None:
    trees: list[Tree] = [{}, {"Body": {}}, {"Body": {"CertificateInstallationRes": {"ResponseCode": "FAILED"}}}]
    for tree in trees:
        with pytest.raises(SignatureRefused):
            signed_elements(Message(MessageSet.ISO15118_2, "V2G_Message", tree))
