"""What a station gets with CertificateSigned: a root is known by its signature, not by its name."""

from __future__ import annotations

import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.ocpp_security.sign_certificate import spki_of
from chargepki.ocpp_security.signed_chain import chain_to_send
from chargepki.pki.errors import InputError
from testkit.hierarchy import Node, make_node

ROOT = make_node("One Name", None, ca=True)
SUB = make_node("One Name", ROOT, ca=True, path_length=0)
LEAF = make_node("CS1", SUB, ca=False)


def der(*nodes: Node) -> tuple[bytes, ...]:
    return tuple(node.certificate.public_bytes(Encoding.DER) for node in nodes)


def test_a_sub_ca_with_the_name_of_its_root_is_sent_and_the_root_is_not() -> None:
    """M03 to M06 remarks; RFC 5280 3.2: self-issued is not self-signed."""
    pem = chain_to_send(der(LEAF, SUB, ROOT), spki_of(LEAF.certificate), 10_000)
    assert x509.load_pem_x509_certificates(pem.encode()) == [LEAF.certificate, SUB.certificate]


def test_blocks_are_sent_and_nothing_else() -> None:
    """RFC 7468 3: no text about subjects and issuers, no carriage return, no blank line."""
    block = r"-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE-----\n"
    assert re.fullmatch(f"(?:{block}){{2}}", chain_to_send(der(LEAF, SUB), spki_of(LEAF.certificate), 10_000))


@pytest.mark.parametrize("chain", [(), der(SUB, ROOT)])
def test_a_chain_for_another_key_is_not_sent(chain: tuple[bytes, ...]) -> None:
    with pytest.raises(InputError, match="not for the public key"):
        chain_to_send(chain, spki_of(LEAF.certificate), 10_000)


def test_a02_fr_16_the_limit_holds_for_what_is_sent() -> None:
    pem = chain_to_send(der(LEAF, SUB, ROOT), spki_of(LEAF.certificate), 10_000)
    assert chain_to_send(der(LEAF, SUB, ROOT), spki_of(LEAF.certificate), len(pem)) == pem
    with pytest.raises(InputError, match=r"A02\.FR\.16"):
        chain_to_send(der(LEAF, SUB, ROOT), spki_of(LEAF.certificate), len(pem) - 1)
