"""Contracts and vehicles on the command line: from a hierarchy to a key in a vehicle, and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from testkit.command_line import CommandLine

PCID, EMAID = "WAUABC12345678901D", "DE8AAA1B2C3D4E"
CAS = (
    ("v2g-root", None, "V2G"),
    ("cps-sub2", "v2g-root", "CPS"),
    ("mo-root", None, "MO"),
    ("mo-sub2", "mo-root", "MO"),
    ("oem-root", None, "OEM"),
    ("oem-sub2", "oem-root", "OEM"),
)
SERVICE = ("--contract-ca", "p-mo-sub2", "--cps-ca", "p-cps-sub2")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandLine, Path]:
    """A workspace with what contracts need, and a vehicle's key and chain as files."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "passphrase").write_bytes(b"correct horse battery staple\n")
    (folder / "passphrase").chmod(0o600)
    run = CommandLine(folder / "home", {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase")})
    for role, issuer, dc in CAS:
        above = ("--issuer", f"p-{issuer}") if issuer else ()
        run(
            "ca",
            "create",
            f"p-{role}",
            "--profile",
            f"iso15118-2/{role}",
            *above,
            "--subject",
            f"CN=P {role},O=Acme,DC={dc}",
        )
    request = ("--ca", "p-oem-sub2", "--profile", "iso15118-2/oem-provisioning", "--subject", f"CN={PCID},O=Acme")
    run("cert", "issue", *request, "--new-key", "--key-out", folder / "car.key", "--chain-out", folder / "car.pem")
    run("ca", "chain", "p-v2g-root", "--out", folder / "v2g.pem")
    return run, folder


def test_a_contract_goes_from_its_creation_to_the_vehicle_and_to_its_end(shop: tuple[CommandLine, Path]) -> None:
    run, folder = shop
    car = ("--cert", folder / "car.pem", "--key", folder / "car.key", "--v2g-root", folder / "v2g.pem")
    ask, give = folder / "request.exi", folder / "response.exi"
    (row,) = run("vehicle", "import", folder / "car.pem", "--json").json()["vehicles"]
    assert (row["pcid"], row["standard"], row["contracts"]) == (PCID, "iso15118-2", [])
    dry = run("contract", "create", "DE-8AA-A1B2C3D4E", "--vehicle", PCID, "--dry-run", "--json").json()
    assert dry["vehicles"] == [PCID]
    assert run("contract", "list", "--json").json()["contracts"] == []
    run("contract", "create", "DE-8AA-A1B2C3D4E", "--vehicle", PCID)
    run("vehicle", "request", *car, "--out", ask)
    run("contract", "provision", ask, *SERVICE, "--dry-run")
    assert run("contract", "show", EMAID, "--json").json()["answers"] == []
    told = run("contract", "provision", ask, *SERVICE, "--out", give)
    assert "(given before)" not in told.stderr
    opened = run(
        "vehicle",
        "open",
        give,
        *car,
        "--key-out",
        folder / "contract.key",
        "--chain-out",
        folder / "contract.pem",
        "--json",
    ).json()
    assert opened["emaid"] == EMAID
    key = load_pem_private_key((folder / "contract.key").read_bytes(), None)
    leaf = x509.load_pem_x509_certificate((folder / "contract.pem").read_bytes())
    assert leaf.public_key() == key.public_key()
    # The same request, as base64, brings the same bytes.
    import base64

    again = run("contract", "provision", "-", *SERVICE, stdin=base64.b64encode(ask.read_bytes()))
    assert again.stdout == give.read_bytes()
    assert "(given before)" in again.stderr
    (answer,) = run("contract", "show", EMAID, "--json").json()["answers"]
    assert (answer["state"], answer["vehicle"]) == ("answered", PCID)
    assert run("vehicle", "show", PCID.lower(), "--json").json()["offers"][0]["contract"] == EMAID
    small = run.run("contract", "provision", ask, *SERVICE, "--characters", "1000").check_one_error(3)
    assert "characters of base64; the answer carries 1000" in small.stderr
    bad = bytearray(give.read_bytes())
    bad[-40] ^= 1
    (folder / "bad.exi").write_bytes(bytes(bad))
    run.run("vehicle", "open", folder / "bad.exi", *car).check_one_error(1)
    run("contract", "offer", EMAID, "--vehicle", PCID, "--withdraw")
    run.run("contract", "provision", ask, *SERVICE).check_one_error(3)
    run("contract", "offer", EMAID, "--vehicle", PCID)
    assert run("contract", "revoke", EMAID, "--dry-run", "--json").json()["state"] == "ended"
    ended = run("contract", "revoke", EMAID, "--json")
    assert (ended.json()["state"], ended.json()["certificates"]) == ("ended", 0)
    assert "next: chargepki crl publish --ca p-mo-sub2@1" in ended.stderr
    assert run("cert", "show", answer["certificate"], "--json").json()["state"] == "revoked"
    refused = run.run("contract", "provision", ask, *SERVICE).check_one_error(3)
    assert "no contract for vehicle" in refused.stderr
    run.run("contract", "create", EMAID).check_one_error(3)
    run("audit", "verify")


def test_roots_of_others_are_added_by_fingerprint_and_withdrawn(shop: tuple[CommandLine, Path]) -> None:
    run, folder = shop
    pem = folder / "v2g.pem"
    digest = hashlib.sha256(x509.load_pem_x509_certificate(pem.read_bytes()).public_bytes(Encoding.DER)).hexdigest()
    words = ("vehicle", "add-root", pem, "--use", "v2g", "--source", "letter")
    run.run(*words, "--fingerprint", "00" * 32).check_one_error(3)
    assert run(*words, "--fingerprint", digest, "--manufacturer", "wau", "--json").json()["manufacturers"] == ["WAU"]
    assert [row["state"] for row in run("vehicle", "roots", "--json").json()["roots"]] == ["trusted"]
    assert run("vehicle", "withdraw-root", digest, "--json").json()["state"] == "withdrawn"
    for_contracts = ("vehicle", "add-root", pem, "--use", "mo", "--source", "letter", "--fingerprint", digest)
    contracts = run(*for_contracts, "--json").json()
    assert (contracts["use"], contracts["source"]) == ("mo", "letter")
    assert "certifies no vehicles" in run.run(*for_contracts, "--manufacturer", "WAU").check_one_error(3).stderr
    run("vehicle", "withdraw-root", digest)


def test_what_does_not_belong_together_is_refused(shop: tuple[CommandLine, Path], tmp_path: Path) -> None:
    run, folder = shop
    (tmp_path / "junk").write_bytes(b"junk")
    run.run("contract", "provision", tmp_path / "junk", *SERVICE).check_one_error(3)
    run.run("contract", "provision", folder / "car.pem", "--contract-ca", "p-mo-sub2").check_one_error(3)
    (tmp_path / "request").write_bytes(b"\x80junk")
    assert run.run("contract", "provision", tmp_path / "request", "--contract-ca", "p-mo-sub2").code == 2
    run.run(
        "contract", "provision", tmp_path / "request", "--contract-ca", "p-oem-sub2", "--cps-ca", "p-cps-sub2"
    ).check_one_error(3)
    run.run(
        "contract", "provision", tmp_path / "request", "--contract-ca", "p-mo-sub2", "--cps-ca", "p-mo-sub2"
    ).check_one_error(3)
    run.run("vehicle", "show", "WAUABC00000000000").check_one_error(3)
    run.run("contract", "show", "nonsense").check_one_error(3)
    run.run("vehicle", "import", tmp_path / "junk").check_one_error(3)
    two = run.run("vehicle", "import", folder / "car.pem", tmp_path / "junk")
    assert two.code == 3 and "1 of 2 files were refused" in two.stderr


def test_a_provisioning_service_that_was_certified_elsewhere_signs_answers(
    shop: tuple[CommandLine, Path], tmp_path: Path
) -> None:
    """As with the leaf of another V2G root's operator: chain and key come as files."""
    run, folder = shop
    pcid, emaid = "WAUCPS12345678901D", "DE8AACPS000001"
    request = ("--ca", "p-oem-sub2", "--profile", "iso15118-2/oem-provisioning", "--subject", f"CN={pcid},O=Acme")
    key, chain = tmp_path / "car.key", tmp_path / "car.pem"
    run("cert", "issue", *request, "--new-key", "--key-out", key, "--chain-out", chain)
    run("vehicle", "import", chain)
    run("contract", "create", emaid, "--vehicle", pcid)
    car = ("--cert", chain, "--key", key, "--v2g-root", folder / "v2g.pem")
    run("vehicle", "request", *car, "--out", tmp_path / "request.exi")
    leaf = ("--ca", "p-cps-sub2", "--profile", "iso15118-2/cps", "--subject", "CN=Elsewhere,O=Acme")
    run("cert", "issue", *leaf, "--new-key", "--key-out", tmp_path / "cps.key", "--chain-out", tmp_path / "cps.pem")
    provision = ("contract", "provision", tmp_path / "request.exi", "--contract-ca", "p-mo-sub2")
    given = ("--cps-cert", tmp_path / "cps.pem", "--cps-key", tmp_path / "cps.key")
    run(*provision, *given, "--out", tmp_path / "answer.exi")
    assert run("vehicle", "open", tmp_path / "answer.exi", *car, "--json").json()["emaid"] == emaid
    other_key = ("--cps-cert", tmp_path / "cps.pem", "--cps-key", key)
    assert "not that of its certificate" in run.run(*provision, *other_key).check_one_error(3).stderr
    no_service = ("--cps-cert", chain, "--cps-key", key)
    run.run(*provision, *no_service).check_one_error(3)
    assert run.run(*provision, "--cps-cert", tmp_path / "cps.pem").code == 2


def test_a_csms_that_holds_no_ca_key_answers_no_vehicles(shop: tuple[CommandLine, Path]) -> None:
    run, _ = shop
    serve = ("csms", "serve", "--listen", "127.0.0.1:0", "--security-profile", "1", *SERVICE)
    done = run.run(*serve)
    assert done.code == 2 and "--contract-ca needs --issue-here" in done.stderr
    assert run.run(*serve[:-2], "--issue-here").code == 2


def test_a_vehicle_certificate_of_20_is_listed_by_its_evccid(shop: tuple[CommandLine, Path], tmp_path: Path) -> None:
    run, _ = shop
    evccid, url = "WMIV1234567890ABCDEX", ("--public-url", "http://pki.test")
    for role, issuer in (("oem-root", None), ("vehicle-sub1", "oem-root"), ("vehicle-sub2", "vehicle-sub1")):
        above = ("--issuer", f"v-{issuer}") if issuer else ()
        run(
            "ca", "create", f"v-{role}", "--profile", f"iso15118-20/{role}", *above, "--subject", f"CN={role},O=A", *url
        )
    order = ("--ca", "v-vehicle-sub2", "--profile", "iso15118-20/vehicle", "--subject", f"CN={evccid},O=A", *url)
    run("cert", "issue", *order, "--new-key", "--key-out", tmp_path / "v.key", "--chain-out", tmp_path / "v.pem")
    (row,) = run("vehicle", "import", tmp_path / "v.pem", "--json").json()["vehicles"]
    assert (row["pcid"], row["evccid"], row["standard"]) == (None, evccid, "iso15118-20")
    assert row in run("vehicle", "list", "--json").json()["vehicles"]
    shown = run("vehicle", "show", evccid.lower(), "--json").json()
    assert (shown["evccid"], shown["certificates"][0]["state"]) == (evccid, "active")
    assert run("vehicle", "remove", evccid, "--dry-run").code == 0
    assert run("vehicle", "remove", evccid, "--json").json()["certificates"][0]["state"] == "removed"
    run.run("vehicle", "show", "WMIV000000000000000X").check_one_error(3)
    run("audit", "verify")
