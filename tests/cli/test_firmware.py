"""`firmware sign` and `firmware verify`: exit codes, reports, inputs of every form."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testkit.command_line import CommandLine, snapshot


@dataclass(frozen=True, slots=True)
class Release:
    """A workspace with a manufacturer root and two signing certificates, and an image."""

    folder: Path
    run: CommandLine

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    (folder / "passphrase").write_bytes(b"correct horse battery staple\n")
    (folder / "passphrase").chmod(0o600)
    run = CommandLine(
        folder / "home",
        {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"), "CHARGEPKI_PUBLIC_URL": "http://pki.test"},
    )
    run("ca", "create", "maker", "--profile", "ocpp/manufacturer-root", "--subject", "CN=Maker Root,O=Maker")
    run("ca", "chain", "maker", "--out", folder / "root.pem")
    for name, algorithm in (("ec", "secp256r1"), ("rsa", "rsa2048")):
        run(
            "cert", "issue", "--ca", "maker", "--profile", "ocpp/firmware-signing", "--subject", "CN=FW,O=Maker",
            "--new-key", "--key", algorithm, "--key-out", folder / f"{name}.key", "--out", folder / f"{name}.pem",
        )  # fmt: skip
    (folder / "image").write_bytes(hashlib.shake_128(b"image").digest(100_000))
    return Release(folder, run)


def sign(release: Release, key: str, out: Path, *options: str) -> None:
    release.run(
        "firmware", "sign", release.file("image"), "--key", release.file(f"{key}.key"),
        "--cert", release.file(f"{key}.pem"), "--out", out, *options,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_what_is_signed_is_verified_under_the_given_root_or_the_workspaces(
    release: Release, key: str, tmp_path: Path
) -> None:
    out = tmp_path / "signature"
    sign(release, key, out, "--trust", str(release.file("root.pem")))
    words = ("firmware", "verify", release.file("image"), "--cert", release.file(f"{key}.pem"), "--signature")
    report = release.run(*words, out, "--trust", release.file("root.pem"), "--json").json()
    assert report["valid"]
    assert report["digest"] == hashlib.sha256(release.file("image").read_bytes()).hexdigest()
    # The workspace's own manufacturer roots, and the signature as text.
    assert release.run(*words, out.read_text().strip()).out.startswith("valid: ")
    stdin = release.file("image").read_bytes()
    release.run("firmware", "verify", "-", *words[3:], out, stdin=stdin)


def test_files_of_raw_octets_and_of_wrapped_base64_are_read(release: Release, tmp_path: Path) -> None:
    sign(release, "rsa", tmp_path / "raw", "--raw")
    octets = (tmp_path / "raw").read_bytes()
    (tmp_path / "wrapped").write_bytes(base64.encodebytes(octets))
    for name in ("raw", "wrapped"):
        release.run(
            "firmware", "verify", release.file("image"), "--cert", release.file("rsa.pem"),
            "--signature", tmp_path / name,
        )  # fmt: skip


def test_a_no_is_exit_1_with_status_event_and_reason(release: Release, tmp_path: Path) -> None:
    sign(release, "rsa", tmp_path / "sig", "--quirk", "pkcs1-v15")
    words = (
        "firmware", "verify", release.file("image"), "--cert", release.file("rsa.pem"), "--signature", tmp_path / "sig",
    )  # fmt: skip
    done = release.run(*words, code=1)
    done.check_one_error(1)
    assert "InvalidSignature" in done.stderr
    found = release.run(*words, "--json", code=1).json()["refusal"]
    assert (found["status"], found["event"], found["rule"]) == (
        "InvalidSignature", "InvalidFirmwareSignature", "rsa-pkcs1-v15",
    )  # fmt: skip
    report = release.run(*words, "--quirk", "pkcs1-v15", "--json").json()
    assert len(report["deviations"]) == 1
    # Even a quiet run says so.
    assert "pkcs1-v15" in release.run(*words, "--quirk", "pkcs1-v15", "-q").stderr


@pytest.mark.parametrize("option", ["--crl", "--ocsp-response", "--trust", "--cert"])
def test_undecodable_evidence_never_means_yes(release: Release, tmp_path: Path, option: str) -> None:
    sign(release, "ec", tmp_path / "sig")
    (tmp_path / "junk").write_bytes(b"junk")
    words = [
        "firmware", "verify", str(release.file("image")), "--signature", str(tmp_path / "sig"), option,
        str(tmp_path / "junk"),
    ]  # fmt: skip
    if option != "--cert":
        words += ["--cert", str(release.file("ec.pem"))]
    release.run(*words, code=1).check_one_error(1)


def test_revoked_after_release_is_told_from_the_list(release: Release, tmp_path: Path) -> None:
    run = release.run
    run(
        "cert", "issue", "--ca", "maker", "--profile", "ocpp/firmware-signing", "--subject", "CN=Old,O=Maker",
        "--new-key", "--key-out", tmp_path / "old.key", "--out", tmp_path / "old.pem",
    )  # fmt: skip
    words = ("--key", tmp_path / "old.key", "--cert", tmp_path / "old.pem", "--out", tmp_path / "sig")
    run("firmware", "sign", release.file("image"), *words)
    run("cert", "revoke", tmp_path / "old.pem", "--reason", "keyCompromise")
    run("crl", "publish", "--ca", "maker", "--out", tmp_path / "maker.crl")
    verify = ("firmware", "verify", release.file("image"), "--signature", tmp_path / "sig", "--cert")
    report = run(*verify, tmp_path / "old.pem", "--crl", tmp_path / "maker.crl", "--json", code=1).json()
    assert report["refusal"]["status"] == "RevokedCertificate"


def test_a_refused_signing_changes_nothing(release: Release, tmp_path: Path) -> None:
    run, image = release.run, release.file("image")
    before = snapshot(release.folder)
    cases: list[tuple[int, tuple[str | Path, ...]]] = [
        (4, (image, "--key", release.file("rsa.key"), "--cert", release.file("ec.pem"))),
        (3, (image, "--key", release.file("ec.key"), "--cert", release.file("root.pem"))),
        (4, (image, "--key", tmp_path / "absent.key", "--cert", release.file("ec.pem"))),
        (4, (image, "--key", "pkcs11:token=T;object=K", "--cert", release.file("ec.pem"))),
        (4, (tmp_path / "absent", "--key", release.file("ec.key"), "--cert", release.file("ec.pem"))),
        (3, (tmp_path, "--key", release.file("ec.key"), "--cert", release.file("ec.pem"))),
        (3, (Path("/dev/zero"), "--key", release.file("ec.key"), "--cert", release.file("ec.pem"))),
        (
            3,
            (image, "--key", release.file("ec.key"), "--cert", release.file("ec.pem"), "--quirk", "pkcs1-v15"),
        ),
    ]
    for code, words in cases:
        run("firmware", "sign", *words, "--out", tmp_path / "sig", code=code).check_one_error(code)
    run(
        "firmware", "sign", image, "--key", release.file("ec.key"), "--cert", release.file("ec.pem"),
        "--out", tmp_path / "sig", "--dry-run",
    )  # fmt: skip
    assert not (tmp_path / "sig").exists()
    assert snapshot(release.folder) == before


def test_a_key_of_the_workspace_signs_by_its_uri_and_an_encrypted_file_with_the_passphrase(
    release: Release, tmp_path: Path
) -> None:
    # A CA's key must not sign firmware: opened, and refused for what its certificate is.
    done = release.run(
        "firmware", "sign", release.file("image"), "--key", "file:maker@1.key", "--cert", release.file("ec.pem"), code=4
    )
    assert "not the one that the certificate names" in done.stderr
    from chargepki.pki.private_keys import encrypt_private_key, load_private_key

    key = load_private_key(release.file("ec.key").read_bytes())
    sealed = tmp_path / "sealed.key"
    sealed.write_bytes(encrypt_private_key(key, b"correct horse battery staple"))
    sealed.chmod(0o600)
    words = ("--key", sealed, "--cert", release.file("ec.pem"))
    signature = release.run("firmware", "sign", release.file("image"), *words).out.strip()
    release.run("firmware", "verify", release.file("image"), "--cert", release.file("ec.pem"), "--signature", signature)


def test_a_mutation_pack_is_written_whole_and_never_over_something(release: Release, tmp_path: Path) -> None:
    run, folder = release.run, tmp_path / "pack"
    run("firmware", "mutate", release.file("image"), "--out-dir", folder, "--dry-run")
    assert not folder.exists()
    older = tmp_path / "older"
    older.write_bytes(b"an earlier release of the maker's own, of at least 64 octets, as a pack needs them to be")
    listed = run("firmware", "mutate", release.file("image"), "--older", older, "--out-dir", folder, "--json").json()[
        "cases"
    ]
    assert "rolled-back" in {case["id"] for case in listed}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert (manifest["schema"], manifest["schema_version"]) == ("chargepki/firmware-mutations", 1)
    assert len(listed) == len(manifest["cases"])
    for case in manifest["cases"]:
        assert (folder / case["image"]).exists()
        assert (folder / "cases" / f"{case['id']}.pem").read_bytes().decode() == case["signingCertificate"]
        assert (folder / "cases" / f"{case['id']}.sig").read_text() == case["signature"]
    run("firmware", "verify", folder / "good.bin", "--signature", "", "--cert", "x", "--installed", "1", code=2)
    for case in manifest["cases"]:
        _check_case(run, folder, case)
    run("firmware", "mutate", release.file("image"), "--out-dir", folder, code=3).check_one_error(3)
    for no_image in (folder, "/dev/zero"):
        run("firmware", "mutate", no_image, "--out-dir", tmp_path / "other", code=3).check_one_error(3)
    run("firmware", "mutate", folder / "absent", "--out-dir", tmp_path / "other", code=4).check_one_error(4)


def test_a_release_goes_from_the_build_to_its_approval(release: Release, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from chargepki.pki.private_keys import serialise_private_key

    run = release.run
    bob = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "bob.key").write_bytes(serialise_private_key(bob))
    (tmp_path / "bob.key").chmod(0o600)
    pem = bob.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "bob.pub").write_bytes(pem)
    sign(release, "ec", tmp_path / "sig")
    words = (
        "firmware", "add", "m1-1.4.0", release.file("image"), "--signature", tmp_path / "sig",
        "--cert", release.file("ec.pem"), "--vendor", "Acme", "--model", "M1", "--version", "1.4.0",
    )  # fmt: skip
    before = snapshot(release.file("home") / "firmware") if release.file("home").joinpath("firmware").exists() else {}
    run(*words, "--dry-run")
    assert not (release.file("home") / "firmware").exists() or snapshot(release.file("home") / "firmware") == before
    assert run(*words, "--json").json()["state"] == "proposed"
    run(*words, code=3).check_one_error(3)
    run("firmware", "register-approver", "bob", "--public-key", tmp_path / "bob.key", code=3).check_one_error(3)
    run("firmware", "register-approver", "bob", "--public-key", tmp_path / "bob.pub")
    run(
        "firmware", "approve", "m1-1.4.0", "--approver", "bob", "--key", release.file("ec.key"), code=3
    ).check_one_error(3)
    # A signature made by another program over the printed line.
    from cryptography.hazmat.primitives import hashes

    line = run("firmware", "show", "m1-1.4.0", "--statement").stdout
    (tmp_path / "approval").write_bytes(bob.sign(line, ec.ECDSA(hashes.SHA256())))
    run("firmware", "approve", "m1-1.4.0", "--approver", "bob", "--signature", tmp_path / "approval", "--dry-run")
    run("firmware", "approve", "m1-1.4.0", "--approver", "bob", "--key", tmp_path / "bob.key")
    (row,) = run("firmware", "list", "--json").json()["releases"]
    assert (row["state"], row["approved_by"], row["running_on"]) == ("approved", ["bob"], 0)
    assert run("firmware", "show", "m1-1.4.0", "--json").json()["approvals"][0]["approver"] == "bob"
    run("firmware", "remove-approver", "bob")
    assert run("firmware", "approvers", "--json").json()["approvers"][0]["active"] is False
    run("firmware", "withdraw", "m1-1.4.0", "--reason", "test over")
    run("audit", "verify")


def test_an_update_is_ordered_only_when_nothing_would_refuse_it(release: Release, tmp_path: Path) -> None:
    run = release.run
    run("station", "add", "CS-1")
    sign(release, "ec", tmp_path / "sig")
    run(
        "firmware", "add", "m2-1.0", release.file("image"), "--signature", tmp_path / "sig",
        "--cert", release.file("ec.pem"), "--location", "https://images.example/m2.img",
    )  # fmt: skip
    words = ("station", "update-firmware", "CS-1", "--release")
    for code, more in (
        (3, ("m2-1.0",)),  # not approved
        (3, ("absent",)),
        (2, ("m2-1.0", "--retrieve-at", "2030-01-02", "--install-at", "2030-01-01")),
    ):
        run(*words, *more, code=code).check_one_error(code)
    assert "check approval" in run(*words, "m2-1.0", code=3).stderr
    assert run("station", "show", "CS-1", "--json").json()["operations"] == []


def _check_case(run: CommandLine, folder: Path, case: Mapping[str, Any]) -> None:
    """Give the files of a case to the command: it says yes or no as the manifest does, and for its reason."""
    files = ("--signature", folder / "cases" / f"{case['id']}.sig", "--cert", folder / "cases" / f"{case['id']}.pem")
    trust = ("--trust", folder / "root.pem", "--crl", folder / "root.crl")
    versions = ("--version", case["version"], "--installed", case["installed_version"]) if case["version"] else ()
    rule = case["expect"]["rule"]
    found = run(
        "firmware", "verify", folder / case["image"], *files, *trust, *versions, "--json", code=1 if rule else 0
    )
    assert (found.json().get("refusal") or {"rule": None})["rule"] == rule, case["id"]
