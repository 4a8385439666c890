"""What a station asks for and what it decodes: every key kind, every broken chain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.certificate_checks import CertificateRules, RefusedChain, build_csr, parse_chain
from chargepki.ocpp_security.wire import CertificateUse
from chargepki.pki import names
from chargepki.pki.csr import check_possession, parse_csr
from chargepki.pki.keys import KeyAlgorithm, spki_der
from testkit.flows import new_key, operator
from testkit.requests import key_of

RULES = CertificateRules(serial_number="CS-0001", organization="Example CSO")
CHAIN = operator().chain_pem(operator().issue(new_key().public_key()))


@pytest.mark.parametrize(
    "algorithm",
    [
        KeyAlgorithm.SECP256R1,
        KeyAlgorithm.SECP384R1,
        KeyAlgorithm.SECP521R1,
        KeyAlgorithm.ED25519,
        KeyAlgorithm.ED448,
        KeyAlgorithm.RSA2048,
    ],
)
def test_a02_fr_03_a_csr_proves_possession_for_every_kind_of_key(algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm)
    request = parse_csr(build_csr(key, RULES.subject(CertificateUse.CHARGING_STATION)))
    check_possession(request)
    assert request.spki_der == spki_der(key) and request.extensions == ()
    assert names.attributes(request.subject_der) == [("CN", "CS-0001"), ("O", "Example CSO")]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_damaged_chain_is_refused_or_decoded_and_never_a_crash(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CHAIN) - 1))
    damaged = data.draw(
        st.sampled_from([CHAIN[:at], CHAIN[at:], CHAIN[:at] + "A" + CHAIN[at + 1 :], CHAIN[:at] + "\0" + CHAIN[at:]])
    )
    try:
        parsed = parse_chain(damaged, RULES)
    except RefusedChain as error:
        assert error.reason_code in ("InvalidCertificate", "TooLargeElement")
    else:
        assert parsed.chain_der


@pytest.mark.parametrize("noise", ["subject: CN=CS-0001\nissuer: x\n", "\r\n", "﻿"])
def test_text_between_the_blocks_is_tolerated(noise: str) -> None:
    assert len(parse_chain(noise + CHAIN.replace("\n", "\r\n") + noise, RULES).chain_der) == 2


def test_a_chain_of_exactly_the_allowed_size_is_taken() -> None:
    parse_chain(CHAIN, CertificateRules("CS-0001", max_chain_characters=len(CHAIN)))
    with pytest.raises(RefusedChain, match="at most") as caught:
        parse_chain(CHAIN, CertificateRules("CS-0001", max_chain_characters=len(CHAIN) - 1))
    assert caught.value.reason_code == "TooLargeElement"
