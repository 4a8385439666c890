"""What a request asks for is guessed from its own fields, the reason is told, and a given profile wins."""

from __future__ import annotations

import pytest

from chargepki.pki import der, keys, names, oids
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import LintSession, read_inputs
from chargepki.pki.lint.csr_view import view_csr
from chargepki.pki.lint.guess import guess_request_profile
from chargepki.pki.lint.session import ObjectReport
from chargepki.pki.profiles import get_profile
from fixtures.lint.certificates import RSA_SPKI
from fixtures.lint.others import CA_TRUE, csr, extension
from fixtures.lint.public_keys import public_test_key

P521 = keys.spki_der(public_test_key(KeyAlgorithm.SECP521R1, 0))


def usage(*listed: str) -> tuple[bytes, ...]:
    return (extension(oids.EXTENDED_KEY_USAGE, der.sequence(*map(der.oid, listed))),)


def name(text: str) -> bytes:
    return names.name_der(names.parse_rdns(text))


HOST = (extension(oids.SUBJECT_ALTERNATIVE_NAME, der.sequence(der.tlv(0x82, b"csms.example"))),)
CASES: dict[str, tuple[bytes, str | None, str]] = {
    "DC": (csr(), "iso15118-2/secc", "DC=CPO"),
    "DC of -20": (csr(subject=name("DC=CSO,O=Ex,CN=x"), spki=P521), "iso15118-20/secc", "DC=CSO"),
    "another key": (csr(spki=RSA_SPKI), "iso15118-2/secc", "DC=CPO; its key belongs to no ISO 15118"),
    "CPS": (csr(subject=name("DC=CPS,O=Ex,CN=x")), "iso15118-2/cps", "DC=CPS"),
    "EVSEID": (csr(subject=name("O=Ex,CN=DE*ABC*E1")), "iso15118-2/secc", "the CN is an EVSEID"),
    "EMAID": (csr(subject=name("O=Ex,CN=DE8AAC1B2C3D4E5")), "iso15118-2/contract", "the CN is an EMAID"),
    "PCID": (csr(subject=name("DC=OEM,O=Ex,CN=WMIV1234567890ABC")), "iso15118-2/oem-provisioning", "the CN is a PCID"),
    "no PCID": (csr(subject=name("O=Ex,CN=WMIV1234567890ABC")), "ocpp/charging-station", "CN and O alone"),
    "server": (csr(subject=name("O=Ex,CN=a"), requested=usage(oids.EKU_SERVER_AUTH)), "ocpp/csms", "it asks for"),
    "host": (csr(subject=name("O=Ex,CN=a"), requested=HOST), "ocpp/csms", "it asks for a host name"),
    "client": (csr(subject=name("CN=a"), requested=usage(oids.EKU_CLIENT_AUTH)), "ocpp/charging-station", "it asks"),
    "station": (csr(subject=name("O=Acme,CN=CS-0001")), "ocpp/charging-station", "CN and O alone"),
    "firmware": (
        csr(subject=name("O=Ex,CN=a"), requested=usage(oids.EKU_CODE_SIGNING)), "ocpp/firmware-signing", "it asks"
    ),
    "responder": (csr(requested=usage(oids.EKU_OCSP_SIGNING)), "common/ocsp-signer", "it asks"),
    "CA": (csr(requested=(CA_TRUE,)), None, "a request for a CA"),
    "nothing": (csr(subject=name("CN=a")), None, "neither its subject"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_guessed_with_its_reason(case: str) -> None:
    data, wanted, reason = CASES[case]
    profile, why = guess_request_profile(view_csr(data))
    assert (None if profile is None else profile.id) == wanted
    assert why.startswith(reason)


def linted(data: bytes, profile: str | None = None) -> ObjectReport:
    inputs, _ = read_inputs(data, "x")
    return LintSession(profile=get_profile(profile) if profile else None).judge(inputs, {})[0]


def test_a_guessed_profile_brings_its_rules_and_a_given_one_wins() -> None:
    without_dc = csr(subject=name("O=Ex,CN=DE*ABC*E1"))
    report = linted(without_dc)
    assert (report.report.profile_id, report.profile_reason) == ("iso15118-2/secc", "the CN is an EVSEID")
    assert "w_csr_dc" in {finding.rule for finding in report.report.findings}
    report = linted(without_dc, "ocpp/charging-station")
    assert (report.report.profile_id, report.profile_reason) == ("ocpp/charging-station", "given")
    assert "w_csr_dc" not in {finding.rule for finding in report.report.findings}
