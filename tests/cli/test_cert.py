"""`chargepki cert`: issue, repeat, list, show, revoke; keys are never overwritten."""

from __future__ import annotations

import base64
import shutil
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from chargepki.pki import files, names
from chargepki.pki.errors import UnavailableError
from testkit.command_line import CommandLine, snapshot, without_privileges
from testkit.requests import make_csr

ISSUE = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/charging-station")
CERTIFICATE_FIELDS = {
    "id", "ca", "serial", "profile", "state", "subject", "not_before", "not_after", "sha256", "station", "delivery",
    "requester", "request_key", "issued_at", "revoked_at", "revocation_reason", "invalidity_date", "crl_shard",
    "origin",
}  # fmt: skip


def csr_for(folder: Path, subject: str = "CN=CS-0002,O=Acme Charging") -> Path:
    path = folder / "request.csr"
    path.write_bytes(make_csr(names.parse_rdns(subject)))
    return path


def ids(run: CommandLine, *filters: str | Path) -> list[str]:
    return [row["id"] for row in run("cert", "list", *filters, "--json").json()["certificates"]]


def test_the_leaf_goes_to_stdout_without_options(run: CommandLine, tmp_path: Path) -> None:
    done = run(*ISSUE, "--csr", csr_for(tmp_path))
    (certificate,) = x509.load_pem_x509_certificates(done.stdout)
    assert certificate.subject == names.parse_rdns("O=Acme Charging,CN=CS-0002")
    assert "issued t-cso-sub@1:" in done.stderr and "valid until" in done.stderr


def test_out_and_chain_out_take_leaf_and_chain_without_root(run: CommandLine, tmp_path: Path) -> None:
    leaf, chain = tmp_path / "leaf.pem", tmp_path / "chain.pem"
    assert run(*ISSUE, "--csr", csr_for(tmp_path), "--out", leaf, "--chain-out", chain).stdout == b""
    first, second = x509.load_pem_x509_certificates(chain.read_bytes())
    assert x509.load_pem_x509_certificate(leaf.read_bytes()) == first
    first.verify_directly_issued_by(second)
    assert second.issuer != second.subject


def test_json_carries_record_and_pem(run: CommandLine, tmp_path: Path) -> None:
    row = run(*ISSUE, "--csr", csr_for(tmp_path), "--json").json()
    assert row.keys() == CERTIFICATE_FIELDS | {
        "schema", "schema_version", "repeated", "clamped", "warnings", "certificate_pem", "chain_pem",
    }  # fmt: skip
    assert row["schema"] == "chargepki/certificate" and row["state"] == "issued" and row["repeated"] is False
    assert row["station"] == "CS-0002", "a CN that is a station's serial number links by itself"
    certificate = x509.load_pem_x509_certificate(row["certificate_pem"].encode())
    assert f"{certificate.serial_number:x}" == row["serial"]
    assert row["not_after"] == f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"


def test_the_same_request_again_is_the_same_certificate(run: CommandLine, tmp_path: Path) -> None:
    request = csr_for(tmp_path)
    first = run(*ISSUE, "--csr", request).stdout
    before = snapshot(run.home)
    again = run(*ISSUE, "--csr", request)
    assert again.stdout == first and "already issued" in again.stderr
    # Another wrapping of the same request is the same request.
    request.write_bytes(base64.b64encode(request.read_bytes()))
    assert run(*ISSUE, "--csr", request).stdout == first
    assert snapshot(run.home) == before
    assert run(*ISSUE, "--csr", request, "--again").stdout != first


def test_a_request_id_is_not_taken_for_another_request(run: CommandLine, tmp_path: Path) -> None:
    run(*ISSUE, "--csr", csr_for(tmp_path), "--request-id", "ticket 7")
    before = snapshot(run.home)
    other = csr_for(tmp_path, "CN=CS-0009,O=Acme Charging")
    assert "another request" in run.run(*ISSUE, "--csr", other, "--request-id", "ticket 7").check_one_error(3).stderr
    assert snapshot(run.home) == before


@pytest.mark.parametrize("request_id", ["", "x" * 201, "a\nb", "\x1b[2J", "\udcff"])
def test_a_bad_request_id_is_refused(run: CommandLine, tmp_path: Path, request_id: str) -> None:
    before = snapshot(run.home)
    run.run(*ISSUE, "--csr", csr_for(tmp_path), "--request-id", request_id).check_one_error(3)
    assert snapshot(run.home) == before


def test_a_new_key_is_written_for_its_owner_and_fits_the_certificate(run: CommandLine, tmp_path: Path) -> None:
    key, leaf = tmp_path / "new.key", tmp_path / "new.pem"
    words = ("--new-key", "--key", "secp384r1", "--subject", "CN=CS-0005,O=Acme", "--key-out", key)
    run(*ISSUE, *words, "--out", leaf)
    assert key.stat().st_mode & 0o777 == 0o600
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert x509.load_pem_x509_certificate(leaf.read_bytes()).public_key() == private.public_key()
    before = snapshot(run.home, tmp_path)
    refused = run.run(*ISSUE, *words, "--out", leaf).check_one_error(3)
    assert "never overwritten" in refused.stderr
    assert snapshot(run.home, tmp_path) == before


def test_a_refused_order_leaves_no_key_file(run: CommandLine, tmp_path: Path) -> None:
    before = snapshot(run.home, tmp_path)
    key = tmp_path / "new.key"
    run.run(*ISSUE, "--new-key", "--subject", "CN=only", "--key-out", key).check_one_error(3)
    run.run(*ISSUE, "--new-key", "--key", "rot13", "--subject", "CN=x,O=y", "--key-out", key).check_one_error(3)
    run.run(*ISSUE, "--new-key", "--key", "ed448", "--subject", "CN=x,O=y", "--key-out", key).check_one_error(3)
    assert snapshot(run.home, tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--new-key",),
        ("--csr", "x", "--new-key", "--key-out", "y"),
        ("--csr", "x", "--key-out", "y"),
        ("--csr", "x", "--key", "secp256r1"),
    ],
    ids=" ".join,
)
def test_contradicting_options_are_a_usage_error(run: CommandLine, words: tuple[str, ...]) -> None:
    run.run(*ISSUE, *words).check_one_error(2)


def test_a_csr_is_read_from_standard_input(run: CommandLine, tmp_path: Path) -> None:
    assert b"BEGIN CERTIFICATE" in run(*ISSUE, "--csr", "-", stdin=csr_for(tmp_path).read_bytes()).stdout


def test_csms_certificates_carry_the_names_that_are_asked_for(run: CommandLine, tmp_path: Path) -> None:
    words = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/csms", "--new-key", "--key-out", tmp_path / "k")
    done = run(*words, "--subject", "CN=csms.example.org,O=Acme", "--dns", "csms.example.org", "--dns", "b.example.org")
    certificate = x509.load_pem_x509_certificate(done.stdout)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["csms.example.org", "b.example.org"]


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 300, "\x1b[2J", "http://x", "ä.example", "127.0.0.1"])
def test_a_bad_dns_name_is_refused(run: CommandLine, tmp_path: Path, name: str) -> None:
    before = snapshot(run.home, tmp_path)
    words = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/csms", "--new-key", "--key-out", tmp_path / "k")
    run.run(*words, "--subject", "CN=csms.example.org,O=Acme", "--dns", name).check_one_error(3)
    assert snapshot(run.home, tmp_path) == before


REFUSED = {
    "unknown CA": (["--ca", "none"], 3),
    "root as issuer": (["--ca", "t-cso-root"], 3),
    "unknown profile": (["--profile", "ocpp/none"], 3),
    "CA profile": (["--profile", "ocpp/cso-sub"], 3),
    "profile of another standard": (["--profile", "iso15118-2/contract"], 3),
    "outlives issuer": (["--validity", "20y"], 3),
    "longest duration": (["--validity", "999999999y"], 2),
    "no duration": (["--validity", "1e9d"], 2),
    "Arabic digits": (["--validity", "٣d"], 2),
    "unknown station": (["--station", "none"], 3),
    "station with escape": (["--station", "\x1b[2J"], 3),
    "subject without O": (["--subject", "CN=only"], 3),
    "subject with serial of nobody": (["--subject", "CN=x,O=y,L=z"], 3),
    "empty subject": (["--subject", ""], 2),
    "broken subject": (["--subject", "CN"], 2),
    "subject with bad escape": (["--subject", "CN=a\\"], 2),
    "dns where none may be": (["--dns", "a.example"], 3),
}


@pytest.mark.parametrize(("words", "code"), REFUSED.values(), ids=list(REFUSED))
def test_a_refused_order_changes_nothing(run: CommandLine, tmp_path: Path, words: list[str], code: int) -> None:
    request = csr_for(tmp_path)
    before = snapshot(run.home, tmp_path)
    run.run(*ISSUE, "--csr", request, *words, "--out", tmp_path / "leaf.pem").check_one_error(code)
    assert snapshot(run.home, tmp_path) == before


def test_a_profile_that_needs_pointers_refuses_without_a_public_url(run: CommandLine, place: Path) -> None:
    bare = CommandLine(place / "bare", {"CHARGEPKI_PASSPHRASE_FILE": str(place / "passphrase")})
    words = ("ca", "create-hierarchy", "iso15118-20", "--prefix", "x", "--organization", "A", "--country", "DE")
    assert "--public-url" in bare.run(*words).check_one_error(3).stderr
    assert not bare.home.exists()


def disk_full(path: Path, data: bytes) -> None:
    raise UnavailableError(f"cannot write {path}", why="No space left on device")


def test_a_lost_output_is_got_back_by_the_same_command(run: CommandLine, tmp_path: Path) -> None:
    request, before = csr_for(tmp_path), len(ids(run))
    done = run.run(*ISSUE, "--csr", request, "--out", tmp_path / "no" / "leaf.pem")
    assert "there is no folder" in done.check_one_error(4).stderr
    (tmp_path / "leaf.pem").mkdir()
    assert "is a folder" in run.run(*ISSUE, "--csr", request, "--out", tmp_path / "leaf.pem").check_one_error(4).stderr
    assert len(ids(run)) == before, "nothing was issued for files that cannot be written"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_durable", disk_full)
        done = run.run(*ISSUE, "--csr", request, "--out", tmp_path / "l", "-q").check_one_error(4)
        words = (*ISSUE, "--new-key", "--subject", "CN=CS-0005,O=Acme", "--key-out", tmp_path / "k")
        keyed = run.run(*words, "--out", tmp_path / "l", "-q").check_one_error(4)
    assert "fix: repeat this command" in done.stderr and len(ids(run)) == before + 2
    assert "its key waits in" in keyed.stderr and "k.part" in keyed.stderr
    run(*words, "--out", tmp_path / "l")
    assert len(ids(run)) == before + 2 and (tmp_path / "k").exists() and not (tmp_path / "k.part").exists()
    assert b"BEGIN CERTIFICATE" in run(*ISSUE, "--csr", request).stdout


def test_a_bad_file_name_for_the_output_is_one_clear_error(run: CommandLine, tmp_path: Path) -> None:
    done = run.run(*ISSUE, "--csr", csr_for(tmp_path), "--out", tmp_path / ("\udcff" + "x" * 300), "-q")
    assert "File name too long" in done.check_one_error(4).stderr


# -- list and show -----------------------------------------------------------------------------------------------------


def test_list_filters(run: CommandLine) -> None:
    every = ids(run)
    assert len(every) == 5
    live, dead = ids(run, "--state", "issued", "--station", "CS-0001"), ids(run, "--state", "revoked")
    assert len(live) == len(dead) == 1 and live != dead
    assert set(ids(run, "--ca", "t-cso-sub")) == {*live, *dead}
    assert set(ids(run, "--profile", "ocpp/charging-station")) == {*live, *dead}
    assert ids(run, "--expires-before", "2020-01-01T00:00:00Z") == []
    assert set(ids(run, "--expires-before", "2200-01-01T00:00:00+02:00")) == set(every)
    assert len(ids(run, "--limit", "2")) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--state", "lost"), 3),
        (("--state", "\x1b[2J"), 3),
        (("--ca", "none"), 3),
        (("--expires-before", "tomorrow"), 2),
        (("--expires-before", "2026-03-01T00:00:00"), 2),
        (("--expires-before", "0001-01-01T00:00:00+14:00"), 2),
        (("--expires-before", "9999-12-31T23:59:59-14:00"), 2),
        (("--expires-before", "2026-02-30T00:00:00Z"), 2),
        (("--expires-before", ""), 2),
        (("--expires-before", "2026-03-01T00:00:00Z\0"), 2),
        (("--limit", "-1"), 2),
    ],
    ids=repr,
)
def test_a_bad_filter_is_one_clear_error(run: CommandLine, words: tuple[str, ...], code: int) -> None:
    run.run("cert", "list", *words).check_one_error(code)


@pytest.mark.parametrize("words", [("--profile", "ocpp/csms"), ("--station", "none")], ids=repr)
def test_a_filter_that_matches_nothing_is_an_empty_list(run: CommandLine, words: tuple[str, ...]) -> None:
    assert ids(run, *words) == []


def test_show_takes_serials_in_every_spelling_and_files(run: CommandLine, place: Path) -> None:
    (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
    serial = live.partition(":")[2]
    shown = run("cert", "show", live, "--json").json()
    assert shown["id"] == live and shown["certificate_pem"] == (place / "live.pem").read_text()
    for spelling in (
        serial,
        serial.upper(),
        f"0x{serial}",
        f"00{serial}",
        f"t-cso-sub:{serial}",
        f"t-cso-sub@1:{serial}",
    ):
        assert run("cert", "show", spelling, "--json").json() == shown
    text = run("cert", "show", live).out
    assert text.endswith((place / "live.pem").read_text()), "PEM stands alone, so that it can be copied"
    from_file = run("cert", "show", place / "live.pem", "--json").json()
    assert from_file["sha256"] == shown["sha256"]
    assert from_file["id"] == shown["id"] and from_file["inventory"] == "in this inventory"
    assert (from_file["state"], from_file["station"]) == ("issued", "CS-0001")
    foreign = CommandLine(place / "other")
    assert "inventory" not in foreign("cert", "show", place / "live.pem", "--json").json()
    foreign("station", "add", "X")
    assert "not in this inventory" in foreign("cert", "show", place / "live.pem").out
    assert "looks_like" in from_file and "looks_like" not in shown


@pytest.mark.parametrize(
    "serial",
    ["none", "", "1", "t-cso-sub:1", "none:1", ":1", "t-cso-sub:", "f" * 41, "\x1b[2J", "1\n", "-1", "٣", "x\udcff"],
)
def test_a_serial_of_no_certificate_is_refused(run: CommandLine, serial: str) -> None:
    before = snapshot(run.home)
    for words in (("show", "--", serial), ("revoke", "--reason", "superseded", "--", serial)):
        run.run("cert", *words).check_one_error(3)
    assert snapshot(run.home) == before


# -- revoke ------------------------------------------------------------------------------------------------------------


def test_revoking_publishes_the_crl_and_repeating_it_is_harmless(run: CommandLine) -> None:
    (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
    before = run("ca", "show", "t-cso-sub", "--json").json()["crl_number"]
    row = run("cert", "revoke", live, "--reason", "keyCompromise", "--json").json()
    assert (row["state"], row["revocation_reason"]) == ("revoked", "keyCompromise") and row["crl_number"] > before
    again = run("cert", "revoke", live, "--reason", "keyCompromise", "--json").json()
    assert again["revoked_at"] == row["revoked_at"]
    refused = run.run("cert", "revoke", live, "--reason", "superseded").check_one_error(3)
    assert "revoked already, for keyCompromise" in refused.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--reason", "because"), 3),
        (("--reason", "removeFromCRL"), 3),
        (("--reason", "\x1b[2J"), 3),
        (("--reason", ""), 3),
        ((), 2),
        (("--reason", "superseded", "--revoked-at", "2200-01-01T00:00:00Z"), 3),
        (("--reason", "superseded", "--revoked-at", "2001-01-01T00:00:00Z"), 3),
        (("--reason", "superseded", "--revoked-at", "now"), 2),
    ],
    ids=repr,
)
def test_a_refused_revocation_changes_nothing(run: CommandLine, words: tuple[str, ...], code: int) -> None:
    (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
    before = snapshot(run.home)
    run.run("cert", "revoke", live, *words).check_one_error(code)
    assert snapshot(run.home) == before


def test_revoking_a_ca_names_what_loses_its_trust_and_needs_yes(run: CommandLine) -> None:
    (sub,) = ids(run, "--profile", "ocpp/cso-sub")
    before = snapshot(run.home)
    refused = run.run("cert", "revoke", sub, "--reason", "cACompromise").check_one_error(3)
    assert (
        "is a CA certificate: 1 valid certificate under CA t-cso-sub@1 can no longer be trusted" in refused.stderr
        and "--yes" in refused.stderr
    )
    assert snapshot(run.home) == before
    assert run("cert", "revoke", sub, "--reason", "cACompromise", "--yes", "--json").json()["state"] == "revoked"
    run.run(*ISSUE, "--new-key", "--key-out", "k", "--subject", "CN=x,O=y").check_one_error(3)


def test_a_root_does_not_revoke_itself(run: CommandLine) -> None:
    (root,) = ids(run, "--profile", "ocpp/cso-root")
    before = snapshot(run.home)
    run.run("cert", "revoke", root, "--reason", "superseded", "--yes").check_one_error(3)
    assert snapshot(run.home) == before


def test_revoking_without_a_passphrase_revokes_and_says_how_the_crl_follows(run: CommandLine) -> None:
    (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
    done = run("cert", "revoke", live, "--reason", "superseded", variables={"CHARGEPKI_PASSPHRASE_FILE": None})
    assert "next: chargepki crl publish --ca t-cso-sub@1" in done.stderr and "was not renewed" in done.stderr


def test_a_workspace_that_cannot_be_written_refuses_every_write(prepared: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="chargepki-"))  # pytest's own folders cannot be entered by other users
    try:
        place = shutil.copytree(prepared, folder / "place")
        run = CommandLine(place / "home", {"CHARGEPKI_PASSPHRASE_FILE": str(place / "passphrase")})
        (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
        for path in [run.home, *run.home.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
        with without_privileges(folder):
            before = snapshot(run.home)
            for words in (
                (*ISSUE, "--csr", place / "station.csr"),
                ("cert", "revoke", live, "--reason", "superseded"),
                ("station", "add", "X"),
                ("ca", "create", "x", "--profile", "ocpp/cso-root", "--subject", "CN=x,O=y"),
                ("crl", "publish", "--all"),
            ):
                assert "read-only" in run.run(*words).check_one_error(4).stderr
            assert snapshot(run.home) == before
    finally:
        for path in folder.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(folder)


def test_a_certificate_is_revoked_by_its_file_and_by_the_colon_form_of_its_serial(
    run: CommandLine, place: Path, tmp_path: Path
) -> None:
    (live,) = ids(run, "--state", "issued", "--station", "CS-0001")
    serial = live.partition(":")[2]
    octets = serial.rjust(len(serial) + len(serial) % 2, "0").upper()
    colons = ":".join(octets[at : at + 2] for at in range(0, len(octets), 2))
    for spelling in (colons, f"t-cso-sub:{colons}"):
        assert run("cert", "show", spelling, "--json").json()["id"] == live
    der = tmp_path / "live.der"
    der.write_bytes(x509.load_pem_x509_certificate((place / "live.pem").read_bytes()).public_bytes(Encoding.DER))
    assert run("cert", "revoke", der, "--reason", "superseded", "--json").json()["id"] == live
    assert run("cert", "revoke", place / "live.pem", "--reason", "superseded", "--json").json()["id"] == live
    other = CommandLine(tmp_path / "other")
    other("station", "add", "X")
    refused = other.run("cert", "revoke", der, "--reason", "superseded").check_one_error(3)
    assert "not in this inventory" in refused.stderr


def test_a_repeated_revocation_says_so_and_signs_no_new_list(run: CommandLine) -> None:
    (dead,) = ids(run, "--state", "revoked")
    before = run("ca", "show", "t-cso-sub", "--json").json()["crl_number"]
    again = run("cert", "revoke", dead, "--reason", "superseded", "--json")
    assert "was already revoked on 20" in again.stderr and "(superseded)" in again.stderr
    assert "published" not in again.stderr and again.json()["crl_number"] == before


def test_a_revocation_names_the_other_certificates_of_the_station(run: CommandLine, tmp_path: Path) -> None:
    request = csr_for(tmp_path)
    first, second = (run(*ISSUE, "--csr", request, "--again", "--json").json()["id"] for _ in range(2))
    done = run("cert", "revoke", first, "--reason", "keyCompromise")
    assert "station CS-0002 still has 1 valid certificate" in done.stderr
    assert f"next: chargepki cert revoke {second} --reason keyCompromise" in done.stderr
    assert "still has" not in run("cert", "revoke", second, "--reason", "keyCompromise").stderr
    assert "written to no file: pass --publish-dir" in done.stderr


def test_the_warnings_of_the_linter_are_told_with_their_cures(run: CommandLine, tmp_path: Path) -> None:
    request = csr_for(tmp_path)
    https = {"CHARGEPKI_PUBLIC_URL": "https://pki.acme.com"}
    done = run(*ISSUE, "--csr", request, variables=https)
    assert done.stderr.count("is an https URL") == 1 and "cure: use http" in done.stderr
    assert "warning" not in run(*ISSUE, "--csr", request, "--again", "-q", variables=https).stderr
    row = run(*ISSUE, "--csr", request, "--again", "--json", variables=https).json()
    linted = {item["rule"] for item in row["warnings"] if item["rule"].startswith("w_")}
    assert linted == {"w_revocation_https"}
    clean = run(*ISSUE, "--csr", request, "--again", variables={"CHARGEPKI_PUBLIC_URL": "http://pki.acme.com"})
    assert "URL" not in clean.stderr
    assert "the key is also that of" in clean.stderr and "has the same key" in clean.stderr, (
        "the request policy speaks too"
    )
    shown = run("cert", "show", clean.stderr.split()[1], "--json").json()["verdict"]
    assert {"possession", "key-reuse", "key-renewal"} <= {each["rule"] for each in shown}


def test_a_short_life_that_nobody_asked_for_is_mentioned(run: CommandLine, tmp_path: Path) -> None:
    words = ("cert", "issue", "--ca", "t-cso-sub", "--profile", "ocpp/csms", "--new-key", "--dns", "c.example.org")
    subject = ("--subject", "CN=c.example.org,O=Acme")
    assert "lasts 23 hours" in run(*words, *subject, "--key-out", tmp_path / "a").stderr
    assert "lasts" not in run(*words, *subject, "--key-out", tmp_path / "b", "--validity", "12h").stderr


def test_a_day_alone_is_its_midnight_in_utc(run: CommandLine) -> None:
    assert ids(run, "--expires-before", "2020-01-01") == []
    assert ids(run, "--expires-before", "9999-01-01") == ids(run)
    assert "ocpp/csms" in run.run("cert", "list", "--profile", "ocpp/csmss").stderr
