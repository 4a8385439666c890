"""Bundles are opened and their certificates judged; private keys are never opened, and nothing takes long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption, PrivateFormat, pkcs12
from cryptography.x509 import load_der_x509_certificate

from chargepki.pki import der, oids, private_keys
from chargepki.pki.errors import InputError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.lint import LintSession, lint_private_key
from chargepki.pki.lint.engine import LintReport
from chargepki.pki.lint.pkcs12_view import view_pkcs12
from chargepki.pki.lint.reading import read_inputs
from chargepki.pki.pem import to_pem
from fixtures.lint.containers import ber, pfx, pkcs7, plain_key
from fixtures.lint.others import LEAF, SUB1, SUB2, V2G_ROOT, crl
from fixtures.lint.public_keys import public_test_key
from testkit.command_line import CommandLine

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DATA = files("cryptography_vectors")
AT = ("--at", "2026-01-02T00:00:00Z")
CHAIN = (V2G_ROOT, SUB2, LEAF, SUB1)


def ec_key() -> ec.EllipticCurvePrivateKey:
    key = public_test_key(KeyAlgorithm.SECP256R1, 2)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def reports(data: bytes, *passphrases: bytes, mode: int | None = None) -> dict[str, LintReport]:
    inputs, blocks = read_inputs(data, "x", mode=mode, passphrases=lambda: passphrases)
    found = LintSession(now=NOW).judge(inputs, {"x": blocks} if blocks else {})
    return {f"{each.report.kind} {each.name}": each.report for each in found}


def rules(report: LintReport) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.mark.parametrize("data", [pkcs7(CHAIN), ber(pkcs7(CHAIN)), to_pem("PKCS7", pkcs7(CHAIN)).encode(), pfx(CHAIN)])
def test_the_certificates_of_a_bundle_are_judged_one_by_one_and_together(data: bytes) -> None:
    found = reports(data)
    names = [name for name in found if name.startswith("certificate")]
    assert names == [f"certificate x#{number}" for number in range(1, 5)]
    together = found["container x"]
    assert together.profile_id == "iso15118-2/secc"
    # The order of a SET says nothing, and a bundle may bring its root; the anchor and the length count.
    assert not together.errors
    assert {"e_wrong_anchor", "e_v2g2_path_len"} <= set(together.rules_run)


def test_a_crl_in_a_bundle_is_judged_as_well() -> None:
    assert "crl x#5" in reports(pkcs7(CHAIN, (crl(),)))


def test_roots_in_a_bundle_are_a_store() -> None:
    found = reports((DATA / "pkcs7" / "amazon-roots.p7b").read_bytes())
    assert {name.partition(" ")[0] for name in found} == {"pkcs7", "certificate", "store"}
    assert "n_container_ber" in rules(found["pkcs7 x"])


@pytest.mark.parametrize(
    ("name", "certificates"),
    [
        ("cert-aes256cbc-no-key.p12", 1),
        ("cert-key-aes256cbc.p12", 1),
        ("cert-none-key-none.p12", 1),
        ("cert-rc2-key-3des.p12", 1),
        ("java-truststore.p12", 2),
        ("name-unicode-pwd.p12", 3),
        ("no-password.p12", 1),
    ],
)
def test_every_customary_encryption_is_opened(name: str, certificates: int) -> None:
    view = view_pkcs12((DATA / "pkcs12" / name).read_bytes(), [b"cryptography", b"password"])
    assert (len(view.certificates), view.closed) == (certificates, "")
    for each in view.certificates:
        load_der_x509_certificate(each)


@pytest.mark.parametrize("passphrase", [b"secret", "gr\u00fc\u00df".encode()])
def test_what_another_library_wrote_is_opened_with_its_passphrase_alone(passphrase: bytes) -> None:
    written = pkcs12.serialize_key_and_certificates(
        b"name", ec_key(), load_der_x509_certificate(SUB1), None, BestAvailableEncryption(passphrase)
    )
    assert view_pkcs12(written, [b"wrong", passphrase]).certificates == (SUB1,)
    assert view_pkcs12(written, [b"wrong"]).certificates == ()
    report = reports(written)["pkcs12 x"]
    assert [each.rule for each in report.not_evaluated] == ["w_pkcs12_mac"]
    assert "--passphrase-file" in report.not_evaluated[0].reason


@pytest.mark.parametrize("hashed", [hashes.SHA1(), hashes.SHA256(), hashes.SHA512()], ids=["sha1", "sha256", "sha512"])
def test_every_integrity_code_of_another_library_verifies(hashed: hashes.HashAlgorithm) -> None:
    encryption = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(50).hmac_hash(hashed).build(b"secret")
    written = pkcs12.serialize_key_and_certificates(None, None, load_der_x509_certificate(SUB1), None, encryption)
    assert view_pkcs12(written, [b"secret"]).certificates == (SUB1,)
    spoilt = bytearray(written)
    spoilt[len(written) // 2] ^= 1
    assert view_pkcs12(bytes(spoilt), [b"secret"]).closed


def test_an_open_file_of_another_library_is_read() -> None:
    written = pkcs12.serialize_key_and_certificates(
        None, ec_key(), load_der_x509_certificate(SUB1), None, NoEncryption()
    )
    assert "e_private_key_in_bundle" in rules(reports(written)["pkcs12 x"])


def bomb(rounds: int) -> bytes:
    """Encrypted parts that each demand *rounds* of PBKDF2, and an integrity code that does as well."""
    function = der.sequence(der.oid(oids.PBKDF2), der.sequence(der.octet_string(b"salt"), der.integer(rounds)))
    cipher = der.sequence(der.oid(oids.AES256_CBC), der.octet_string(bytes(16)))
    algorithm = der.sequence(der.oid(oids.PBES2), der.sequence(function, cipher))
    data = "1.2.840.113549.1.7.1"
    sealed = der.sequence(der.oid(data), algorithm, der.implicit(0, bytes(160), constructed=False))
    info = der.sequence(der.oid("1.2.840.113549.1.7.6"), der.explicit(0, der.sequence(der.integer(0), sealed)))
    contents = der.sequence(der.oid(data), der.explicit(0, der.octet_string(der.sequence(*[info] * 200))))
    digest = der.sequence(der.sequence(der.oid(oids.SHA256), der.null()), der.octet_string(bytes(32)))
    mac = der.sequence(digest, der.octet_string(b"salt"), der.integer(rounds))
    return der.sequence(der.integer(3), contents, mac)


@pytest.mark.parametrize("rounds", [0, -1, 3_000_000, 2**31, 2**63, 2**3000])
def test_a_file_that_demands_much_work_stays_closed_soon(rounds: int) -> None:
    begun = time.process_time()
    assert view_pkcs12(bomb(rounds), [b"a", b"b"]).closed
    assert time.process_time() - begun < 8


def test_a_file_of_too_many_bags_is_refused() -> None:
    begun = time.process_time()
    found = reports(pfx((LEAF,) * 2500))
    assert "bags" in found["pkcs12 x"].errors[0].message
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("whole", [pkcs7(CHAIN), pfx(CHAIN), plain_key()], ids=["pkcs7", "pkcs12", "key"])
def test_a_cut_file_is_judged_with_offset_and_rule(whole: bytes) -> None:
    for length in range(12, len(whole), max(len(whole) // 25, 1)):
        (report,) = reports(whole[:length]).values()
        assert [finding.rule for finding in report.errors] == ["e_der_strict"]
        assert report.errors[0].where.startswith("offset ")


def test_enveloped_data_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="enveloped data carries no certificates"):
        read_inputs((DATA / "pkcs7" / "enveloped-no-content.der").read_bytes(), "x")


@pytest.mark.as_shipped
def test_our_own_key_files_are_kept_well() -> None:
    written = private_keys.encrypt_private_key(ec_key(), b"secret")
    (private_key,) = [report for name, report in reports(written, mode=0o644).items() if name.startswith("private-key")]
    assert not private_key.findings
    assert {"e_key_readable", "w_key_weak_encryption"} <= set(private_key.rules_run)


def test_the_old_encryption_of_pem_is_weak_and_a_key_from_nowhere_has_no_permissions() -> None:
    old = (DATA / "asymmetric" / "Traditional_OpenSSL_Serialization" / "key1.pem").read_bytes()
    assert rules(reports(old)["private-key x"]) == {"w_key_weak_encryption"}
    report = lint_private_key(plain_key())
    assert [each.rule for each in report.not_evaluated] == ["e_key_readable"]


def test_on_the_command_line_a_passphrase_opens_a_file_and_no_secret_is_shown(tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "home")
    written = pkcs12.serialize_key_and_certificates(
        None, ec_key(), load_der_x509_certificate(SUB1), None, BestAvailableEncryption(b"very secret")
    )
    (tmp_path / "x.p12").write_bytes(written)
    (tmp_path / "passphrase").write_bytes(b"very secret\n")
    closed = run("lint", tmp_path / "x.p12", *AT)
    assert "no passphrase that was given opens it" in closed.out
    opened = run("lint", tmp_path / "x.p12", *AT, "--passphrase-file", tmp_path / "passphrase", "--json")
    assert [each["kind"] for each in opened.json()["reports"]] == ["pkcs12", "certificate"]
    number = ec_key().private_numbers().private_value
    for done in (closed, opened):
        assert "very secret" not in done.out + done.stderr
        assert f"{number:x}" not in done.out + done.stderr


def test_a_private_key_in_a_folder_is_reported_and_not_judged(tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "home")
    folder = tmp_path / "pki"
    folder.mkdir()
    (folder / "leaf.pem").write_text(to_pem("CERTIFICATE", LEAF))
    (folder / "leaf.key").write_text(to_pem("PRIVATE KEY", plain_key()))
    (folder / "leaf.key").chmod(0o644)
    done = run("lint", folder, *AT, code=1)
    assert "private-key (a private key, not judged: only how it is kept)" in done.out
    assert "rule e_key_readable" in done.out
    (folder / "leaf.key").chmod(0o600)
    run("lint", folder, *AT)


def test_nothing_that_was_read_shows_a_key() -> None:
    inputs, _ = read_inputs(plain_key(), "x")
    assert inputs[0].der == plain_key()
    assert repr(plain_key())[2:20] not in repr(inputs)
