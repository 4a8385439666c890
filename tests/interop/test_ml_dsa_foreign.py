"""What our CAs sign with ML-DSA, verified by an implementation of FIPS 204 that is not ours: npm's @noble/post-quantum.

The signed octets, keys and signatures are cut out of the objects by asn1crypto. No tool of Debian 12 knows ML-DSA in
X.509, so paths are built by our own engine and the signatures along them are judged here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asn1crypto import core, crl, csr, ocsp, x509

from chargepki.pki.authority import Authority, CaOrder, IssueOrder
from chargepki.pki.authority.ocsp import OcspAuthority
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from chargepki.pki.keys import KeyAlgorithm
from testkit.authorities import MemoryKeyStore, make_authority, make_csr, make_key, open_inventory
from testkit.foreign import node_program, run

pytestmark = pytest.mark.foreign

SIZES = {"44": KeyAlgorithm.ML_DSA_44, "65": KeyAlgorithm.ML_DSA_65, "87": KeyAlgorithm.ML_DSA_87}
OIDS = {f"2.16.840.1.101.3.4.3.{17 + number}": size for number, size in enumerate(SIZES)}
"""NIST's arc of signature algorithms, FIPS 204."""


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature by one key."""

    name: str
    size: str
    key: bytes
    octets: bytes
    signature: bytes

    @property
    def line(self) -> str:
        return "\t".join(
            (self.size, *(base64.b64encode(each).decode() for each in (self.key, self.octets, self.signature)))
        )


def cut(name: str, parsed: Any, octets: str, issuer: bytes) -> Signed:
    """Return what of an object was signed, and by which key (of the certificate *issuer*)."""
    spki = x509.Certificate.load(issuer)["tbs_certificate"]["subject_public_key_info"]
    return signed(name, parsed, octets, spki)


def signed(name: str, parsed: Any, octets: str, spki: Any) -> Signed:
    algorithm = parsed["signature_algorithm"]["algorithm"].dotted
    signature = parsed["signature" if "signature" in parsed._field_map else "signature_value"]
    # asn1crypto knows no such key, so the bit string is read as it stands: three children, algorithm and key.
    key = core.Sequence.load(spki.dump())[1]
    assert core.Sequence.load(spki.dump())[0][0].dotted == algorithm
    return Signed(name, OIDS[algorithm], key.contents[1:], parsed[octets].dump(), bytes(signature))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Signed]]:
    """Of each size: a root, a sub-CA, a leaf, a request, a list, an answer, and a cross-certificate of a rollover."""
    folder = tmp_path_factory.mktemp("ml-dsa")
    with open_inventory(f"sqlite:///{folder / 'i.db'}", folder) as inventory:
        authority = make_authority(inventory, keystore=MemoryKeyStore())
        yield [each for size in SIZES for each in made(authority, size)]


def made(authority: Authority, size: str) -> Iterator[Signed]:
    algorithm, subject = SIZES[size], (("CN", f"Q{size}"), ("O", "Test CSO"), ("C", "DE"))
    authority.create_ca(CaOrder(f"r{size}", "ocpp/cso-root", subject=subject, key_algorithm=algorithm))
    sub = CaOrder(f"s{size}", "ocpp/cso-sub", issuer=f"r{size}", subject=subject, key_algorithm=algorithm)
    authority.create_ca(sub)
    request = make_csr(f"CS-{size}", key=make_key(algorithm))
    issued = authority.issue(IssueOrder(ca=f"s{size}", profile="ocpp/charging-station", csr=request))
    authority.revoke(issued.record.id, "superseded")
    root, below = (der_of(authority, f"{each}{size}@1") for each in "rs")
    for name, der, issuer in (("root", root, root), ("sub", below, root), ("leaf", issued.certificate_der, below)):
        yield cut(f"{size} {name}", x509.Certificate.load(der), "tbs_certificate", issuer)
    listed = crl.CertificateList.load(authority.publish_crl(f"s{size}").der)
    yield cut(f"{size} list", listed, "tbs_cert_list", below)
    parsed = csr.CertificationRequest.load(der_of_pem(request))
    info = parsed["certification_request_info"]
    yield signed(f"{size} request", parsed, "certification_request_info", info["subject_pk_info"])
    OcspAuthority(authority).presign(authority.inventory.get_ca(f"s{size}"))
    answer = authority.inventory.find_ocsp_response(issued.record.id, "sha256")
    assert answer is not None
    basic = ocsp.OCSPResponse.load(answer.der)["response_bytes"]["response"].parsed
    responder = basic["certs"][0].dump()
    yield cut(f"{size} answer", basic, "tbs_response_data", responder)
    yield cut(f"{size} responder", x509.Certificate.load(responder), "tbs_certificate", below)
    rolled = roll_over(authority, RolloverOrder(f"r{size}"))
    for name, record, signer in (
        ("new-with-old", rolled.new_with_old, root), ("old-with-new", rolled.old_with_new, rolled.ca.certificate_der)
    ):  # fmt: skip
        assert record is not None and record.der is not None and signer is not None
        yield cut(f"{size} {name}", x509.Certificate.load(record.der), "tbs_certificate", signer)


def der_of(authority: Authority, ca: str) -> bytes:
    der = authority.inventory.get_ca(ca).certificate_der
    assert der is not None
    return der


def der_of_pem(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-----")))


def test_every_object_of_an_ml_dsa_hierarchy_verifies_and_none_that_was_changed(objects: list[Signed]) -> None:
    program = node_program("ml-dsa.mjs", package="@noble/post-quantum")
    changed = [Signed(each.name, each.size, each.key, each.octets + b"\0", each.signature) for each in objects]
    first = objects[0].key
    others = [Signed(each.name, each.size, first, each.octets, each.signature) for each in objects if each.key != first]
    asked = [*objects, *changed, *others]
    done = run(*program, text="".join(f"{each.line}\n" for each in asked))
    assert done.returncode == 0, done.stderr
    verdicts = done.stdout.split()
    expected = ["true"] * len(objects) + ["false"] * (len(changed) + len(others))
    wrong = [each.name for each, one, other in zip(asked, verdicts, expected, strict=True) if one != other]
    assert not wrong
    assert len(objects) == 9 * len(SIZES)
