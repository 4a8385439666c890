"""`inventory export --layout`: folders of other stacks, compared with the names that their documents give."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chargepki.pki.pem import pem_blocks
from testkit.command_line import CommandLine

PASSPHRASE = b"correct horse battery staple"
LEAVES = {
    "secc": ("cpo-sub2", "iso15118-2/secc", "CN=DE*8AA*E1001,O=Acme"),
    "oem-provisioning": ("oem-sub2", "iso15118-2/oem-provisioning", "CN=WAUABC12345678901D,O=Acme"),
    "csms": ("cso-sub", "ocpp/csms", "CN=csms.example,O=Acme"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the hierarchies of ISO 15118-2 and OCPP, and three leaves with their keys."""
    place = tmp_path_factory.mktemp("layouts")
    (place / "pass.txt").write_bytes(PASSPHRASE)
    (place / "pass.txt").chmod(0o600)
    run = shell(place)
    for standard in ("iso15118-2", "ocpp"):
        run("ca", "create-hierarchy", standard, "--prefix", "ev", "--organization", "Acme", "--country", "DE")
    for role, (ca, profile, subject) in LEAVES.items():
        order = ("--ca", f"ev-{ca}", "--profile", profile, "--subject", subject, "--new-key")
        names = ("--dns", "csms.example") if role == "csms" else ()
        run("cert", "issue", *order, *names, "--key-out", place / f"{role}.key", "--chain-out", place / f"{role}.pem")
    return place


def shell(place: Path) -> CommandLine:
    variables = {"CHARGEPKI_PASSPHRASE_FILE": str(place / "pass.txt"), "CHARGEPKI_PUBLIC_URL": "http://pki.test"}
    return CommandLine(place / "home", variables)


def leaf(place: Path, *roles: str) -> list[str]:
    return [part for role in roles for part in ("--leaf", f"{role}={place / role}.pem,{place / role}.key")]


def subjects(path: Path) -> list[str]:
    """Return the common names in a PEM file, in its order."""
    ders = [block.der for block in pem_blocks(path.read_bytes(), max_bytes=1 << 20)]
    names = [x509.load_der_x509_certificate(der).subject for der in ders]
    return [str(name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value) for name in names]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_everest_folder_has_the_paths_of_evse_security(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "certs"
    order = ("inventory", "export", "--layout", "everest", "--prefix", "ev", "--out", out)
    done = shell(place)(*order, *leaf(place, "secc"))
    # The defaults in the manifest of EVerest's module EvseSecurity, and what its tools put beside them.
    assert files(out) >= {
        "ca/v2g/V2G_ROOT_CA.pem",
        "ca/v2g/V2G_ROOT_CA.der",
        "ca/mo/MO_ROOT_CA.pem",
        "ca/mo/INTERMEDIATE_MO_CA_CERTS.pem",
        "ca/csms/CSMS_ROOT_CA.pem",
        "ca/mf/MF_ROOT_CA.pem",
        "ca/cso/CPO_SUB_CA1.pem",
        "ca/cso/CPO_SUB_CA2.pem",
        "client/cso/SECC_LEAF.pem",
        "client/cso/SECC_LEAF.key",
        "client/cso/SECC_LEAF_PASSWORD.txt",
        "client/cso/CPO_CERT_CHAIN.pem",
    }
    assert subjects(out / "client/cso/CPO_CERT_CHAIN.pem") == ["DE*8AA*E1001", "ev CPO sub-CA 2", "ev CPO sub-CA 1"]
    assert not (out / "client/csms").exists()
    keys = [path for path in out.rglob("*.key")]
    assert [path.name for path in keys] == ["SECC_LEAF.key"]
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    load_pem_private_key(keys[0].read_bytes(), None)
    assert "warning: private keys without a passphrase" in done.stderr and "client/cso/SECC_LEAF.key" in done.stderr


def test_maeve_folder_has_the_names_of_its_certificates_makefile(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "certificates"
    order = ("inventory", "export", "--layout", "maeve", "--prefix", "ev", "--out", out)
    shell(place)(*order, *leaf(place, "csms"))
    assert files(out) == {
        *("csms.pem", "csms.key", "trust.pem", "root-V2G-cert.pem", "root-MO-cert.pem"),
        *("cpo_sub_ca1.pem", "cpo_sub_ca2.pem"),
    }
    assert subjects(out / "csms.pem") == ["csms.example", "ev CSO sub-CA"]


def test_citrineos_folder_holds_the_key_of_the_ca_that_it_signs_with_and_the_log_says_so(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "certificates"
    run = shell(place)
    done = run("inventory", "export", "--layout", "citrineos", "--prefix", "ev", "--out", out, *leaf(place, "csms"))
    assert files(out) == {"certChain.pem", "leafKey.pem", "rootCertificate.pem", "subCAKey.pem"}
    key = load_pem_private_key((out / "subCAKey.pem").read_bytes(), None)
    ders = [block.der for block in pem_blocks((out / "certChain.pem").read_bytes(), max_bytes=1 << 20)]
    assert x509.load_der_x509_certificate(ders[1]).public_key() == key.public_key()
    assert "can issue certificates as CA ev-cso-sub@1" in done.stderr
    assert "ca.export-key" in run("audit", "show").out


def test_ecog_folder_has_the_names_of_its_cert_path(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "pki"
    order = ("inventory", "export", "--layout", "ecog-iso15118", "--prefix", "ev", "--out", out)
    shell(place)(*order, *leaf(place, "secc", "oem-provisioning"))
    certs, keys = "iso15118_2/certs", "iso15118_2/private_keys"
    assert files(out) >= {
        *(f"{certs}/{name}" for name in ("cpoCertChain.pem", "v2gRootCACert.pem", "v2gRootCACert.der")),
        *(f"{certs}/{name}.der" for name in ("moRootCACert", "moSubCA1Cert", "moSubCA2Cert", "oemLeafCert")),
        *(f"{keys}/{name}" for name in ("seccLeaf.key", "seccLeafPassword.txt", "oemLeaf.key", "oemLeafPassword.txt")),
    }
    assert {path.name for path in (out / keys).glob("*.key")} == {"seccLeaf.key", "oemLeaf.key"}


def test_nothing_is_written_when_the_stack_could_not_start(place: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "certs", shell(place)
    order = ("inventory", "export", "--prefix", "ev", "--out", out)
    lacking = run.run(*order, "--layout", "everest").check_one_error(3)
    assert "lacks: secc, the key of secc" in lacking.stderr
    other_key = ("--leaf", f"secc={place / 'secc.pem'},{place / 'csms.key'}")
    assert "is not the key of" in run.run(*order, "--layout", "everest", *other_key).check_one_error(3).stderr
    assert "ROLE is one of" in run.run(*order, "--layout", "everest", "--leaf", "root=x").check_one_error(3).stderr
    nobody = run.run("inventory", "export", "--prefix", "no", "--out", out, "--layout", "maeve")
    assert "there are no CAs" in nobody.check_one_error(3).stderr
    assert not out.exists()


def test_a_leaf_of_another_hierarchy_is_refused(place: Path, tmp_path: Path) -> None:
    run = shell(place)
    run("ca", "create", "far-root", "--profile", "iso15118-2/private-root", "--subject", "CN=Far,O=Far")
    order = ("--ca", "far-root", "--profile", "iso15118-2/private-secc", "--subject", "CN=DE*8AA*E1,O=Far,DC=CPO")
    run("cert", "issue", *order, "--new-key", "--key-out", tmp_path / "f.key", "--chain-out", tmp_path / "f.pem")
    given = ("--leaf", f"secc={tmp_path / 'f.pem'},{tmp_path / 'f.key'}")
    export = ("inventory", "export", "--layout", "everest", "--prefix", "ev", "--out", tmp_path / "out")
    assert "no issuer found" in run.run(*export, *given).check_one_error(3).stderr


def test_a_folder_that_holds_something_is_left_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    order = ("inventory", "export", "--layout", "maeve", "--prefix", "ev", "--out", tmp_path)
    assert "exists already" in shell(place).run(*order, *leaf(place, "csms")).check_one_error(3).stderr
    assert files(tmp_path) == {"keep.txt"}


@pytest.mark.parametrize(
    "options",
    [
        ("--prefix", "ev"),
        ("--layout", "everest"),
        ("--layout", "everest", "--prefix", "ev", "--out", "x", "--with-pem"),
    ],
    ids=["no-layout", "no-prefix", "with-a-form"],
)
def test_options_that_do_not_belong_together_are_a_usage_error(place: Path, options: tuple[str, ...]) -> None:
    shell(place)("inventory", "export", *options, code=2)
