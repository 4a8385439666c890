"""`chargepki cert verify`: yes is 0, no is 1 with certificate, clause and cure; --json carries the whole search."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from testkit.command_line import CommandLine


@pytest.fixture
def root(prepared: Path) -> Path:
    """The last certificate of the CA's chain, alone in a file; the sub-CA beside it."""
    sub, anchor = x509.load_pem_x509_certificates((prepared / "chain.pem").read_bytes())
    (prepared / "root.pem").write_bytes(anchor.public_bytes(Encoding.PEM))
    (prepared / "sub.der").write_bytes(sub.public_bytes(Encoding.DER))
    return prepared / "root.pem"


@pytest.fixture
def root_crl(prepared: Path, tmp_path: Path) -> Path:
    run = CommandLine(
        prepared / "home",
        {"CHARGEPKI_PASSPHRASE_FILE": str(prepared / "passphrase"), "CHARGEPKI_PUBLIC_URL": "http://pki.test"},
    )
    run("crl", "publish", "--ca", "t-cso-root", "--out", tmp_path / "root.crl")
    return tmp_path / "root.crl"


def test_a_valid_chain_is_shown_leaf_first(fresh: CommandLine, prepared: Path, root: Path) -> None:
    done = fresh("cert", "verify", "--trust", root, "--untrusted", prepared / "sub.der", prepared / "live.pem")
    first, *rows = done.out.splitlines()
    assert first.startswith("valid for any at ")
    assert [row.split()[0] for row in rows] == ["0", "1", "2"] and "(anchor)" in rows[2]


def test_a_purpose_needs_a_root_of_that_use(fresh: CommandLine, prepared: Path, root: Path) -> None:
    rest = ("--untrusted", prepared / "sub.der", "--purpose", "charging-station", prepared / "live.pem")
    fresh("cert", "verify", "--trust", f"cso={root}", *rest)
    done = fresh.run("cert", "verify", "--trust", f"manufacturer={root}", *rest).check_one_error(1)
    assert "this root is not one for charging-station" in done.stderr and "OCPP A00" in done.stderr
    fresh.run("cert", "verify", "--trust", root, *rest).check_one_error(2)


def test_identity_options_hold_the_leaf_to_its_station(fresh: CommandLine, prepared: Path, root: Path) -> None:
    base = ("cert", "verify", "--trust", root, "--untrusted", prepared / "sub.der", prepared / "live.pem")
    fresh(*base, "--station-serial", "CS-0001", "--organization", "Acme Charging")
    assert "A00.FR.511" in fresh.run(*base, "--station-serial", "CS-0002").check_one_error(1).stderr
    assert "A00.FR.509" in fresh.run(*base, "--organization", "Other").check_one_error(1).stderr
    assert "host names" in fresh.run(*base, "--hostname", "csms.example").check_one_error(1).stderr


def test_revoked_and_unknown_are_different_answers(
    fresh: CommandLine, prepared: Path, root: Path, root_crl: Path
) -> None:
    base = ("cert", "verify", "--trust", root, "--untrusted", prepared / "sub.der", "--crl", root_crl)
    both = (*base, "--crl", prepared / "sub.crl")
    assert "good (CRL" in fresh(*both, prepared / "live.pem").out
    dead = fresh(*both, "--json", prepared / "dead.pem", code=1).json()
    assert dead["valid"] is False
    assert (dead["refusal"]["rule"], dead["refusal"]["position"]) == ("revoked", 0)
    assert "superseded" in dead["refusal"]["why"] and "RFC 5280" in dead["refusal"]["clause"]
    unknown = fresh(*base, "--json", prepared / "live.pem", code=1).json()
    assert unknown["refusal"]["rule"] == "unknown"
    fresh(*base, "--revocation", "if-present", prepared / "live.pem")


def test_json_carries_every_rejected_candidate_path(fresh: CommandLine, prepared: Path, root: Path) -> None:
    late = ("--at", "2099-01-01T00:00:00Z")
    done = fresh("cert", "verify", "--trust", root, "--untrusted", prepared / "sub.der", prepared / "live.pem", *late,
                 "--json", code=1)  # fmt: skip
    verdict = done.json()
    assert verdict["schema"] == "chargepki/chain-verdict" and verdict["search"]["candidates"] == 2
    (rejected,) = verdict["search"]["rejected"]
    assert [row["position"] for row in rejected["path"]] == [0, 1, 2]
    assert rejected["refusal"] == verdict["refusal"]
    assert verdict["refusal"]["fix"]


def test_what_cannot_be_read_is_a_no_with_one_error(fresh: CommandLine, root: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"no certificate")
    fresh.run("cert", "verify", "--trust", root, junk).check_one_error(1)
    fresh.run("cert", "verify", "--trust", junk, root).check_one_error(1)
    assert fresh("cert", "verify", "--trust", root, tmp_path / "absent.pem", code=4).out == ""
    fresh.run("cert", "verify", "--trust", root, "--policy", "x", root).check_one_error(2)
    fresh.run("cert", "verify", "--trust", root, "--nonce", "zz", root).check_one_error(2)
    junk.write_bytes(b"")
    fresh.run("cert", "verify", "--trust", root, junk).check_one_error(1)


def test_policies_are_demanded_when_asked_for(fresh: CommandLine, prepared: Path, root: Path) -> None:
    base = ("cert", "verify", "--trust", root, "--untrusted", prepared / "sub.der", prepared / "live.pem")
    fresh(*base, "--policy", "1.2.3")
    done = fresh.run(*base, "--policy", "1.2.3", "--explicit-policy").check_one_error(1)
    assert "no acceptable certificate policy" in done.stderr
