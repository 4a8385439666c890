"""`chargepki lint`: files, folders, endpoints; text, JSON, SARIF; overrides; exit codes."""

from __future__ import annotations

from pathlib import Path
from socket import create_server
from typing import Any

import jsonschema
import pytest

from chargepki.pki import keys, private_keys
from chargepki.pki.findings import Severity
from chargepki.pki.lint import all_rules
from chargepki.pki.pem import to_pem
from fixtures.lint.generate import Vector, vectors
from fixtures.lint.others import LEAF, SUB1, SUB2, V2G_ROOT, pem
from fixtures.lint.public_keys import PublicDraft, public_test_key
from testkit.command_line import CommandLine
from testkit.tls_server import tls_server

AT = ("--at", "2026-01-02T00:00:00Z")
SECC = "iso15118-2/secc"


def vector(rule: str, *, judges: str = "certificate", accept: bool = False) -> Vector:
    return next(v for v in vectors() if v.rule == rule and v.judges == judges and v.accept is accept)


@pytest.fixture
def lint(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    path = tmp_path / "leaf.der"
    path.write_bytes(LEAF)
    return path


def reports(done: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done.json()["reports"]
    return found


def test_a_sound_leaf_is_judged_with_exit_0_and_its_profile_is_guessed_with_a_reason(
    lint: CommandLine, leaf: Path
) -> None:
    done = lint("lint", leaf, *AT)
    assert "iso15118-2/secc (DC=CPO)" in done.out
    assert "rules not evaluated" in done.stderr


def test_an_error_is_exit_1_with_clause_and_cure(lint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.der").write_bytes(vector("e_v2g2_dc_secc").data)
    done = lint("lint", tmp_path / "x.der", "--profile", SECC, *AT, code=1)
    assert "rule e_v2g2_dc_secc, ISO 15118-2 [V2G2-925]" in done.out
    assert "cure: add DC=CPO" in done.out
    assert "(given)" in done.out


def test_malformed_der_is_judged_with_offset_and_rule_not_refused(lint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.der").write_bytes(LEAF[:200])
    (report,) = reports(lint("lint", tmp_path / "x.der", "--json", code=1))
    assert report["findings"][0]["rule"] == "e_der_strict"
    assert report["findings"][0]["where"].startswith("offset ")
    assert "truncated" in report["findings"][0]["message"]


@pytest.mark.parametrize(
    "judges", ["crl", "csr", "ocsp-response", "hash-data", "collection", "file", "pkcs7", "pkcs12", "private-key"]
)
def test_every_kind_of_object_is_recognised_and_judged(lint: CommandLine, tmp_path: Path, judges: str) -> None:
    broken = [v for v in vectors() if v.judges == judges and v.severity is Severity.ERROR and not v.accept]
    for number, each in enumerate(broken):
        path = tmp_path / f"{number}.{each.file.rpartition('.')[2]}"
        path.write_bytes(each.data)
        path.chmod(each.mode or 0o644)
        options: list[str | Path] = ["--profile", each.profile] if each.profile else []
        options += ["--as", each.kind] if each.kind else []
        if each.settings.weak_keys:
            (tmp_path / "weak.txt").write_text("\n".join(each.settings.weak_keys.moduli))
            options += ["--weak-keys", tmp_path / "weak.txt"]
        if each.issuer:
            (tmp_path / "issuer.der").write_bytes(each.issuer)
            options += ["--issuer", tmp_path / "issuer.der"]
        at = each.at.isoformat() if each.at else "2026-01-01T01:00:00+00:00"
        done = lint("lint", path, *options, "--at", at, "--json", code=1)
        assert each.rule in {finding["rule"] for report in reports(done) for finding in report["findings"]}, each.id


def test_a_folder_is_judged_file_by_file_and_together(lint: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "pki" / "deep"
    folder.mkdir(parents=True)
    (folder / "leaf.pem").write_bytes(pem(LEAF))
    (folder / "chain.pem").write_bytes(pem(LEAF, SUB2, SUB1))
    (tmp_path / "pki" / "same-key.pem").write_bytes(vector("e_duplicate_public_key", judges="collection").data)
    (folder / "notes.txt").write_text("nothing")
    done = lint("lint", tmp_path / "pki", "--json", *AT, code=1)
    together = next(report for report in reports(done) if report["object"] == "all files")
    assert {finding["rule"] for finding in together["findings"]} == {"e_duplicate_public_key"}
    assert [Path(each["file"]).name for each in done.json()["skipped"]] == ["notes.txt"]


def test_members_of_a_bundle_are_judged_against_their_issuers(lint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(pem(LEAF, SUB2, SUB1))
    found = reports(lint("lint", tmp_path / "chain.pem", "--json", *AT))
    bundle = next(report for report in found if report["kind"] == "bundle")
    assert bundle["profile"] == SECC
    assert "e_chain_order" in bundle["rules_run"]
    assert "e_wrong_anchor" in {each["rule"] for each in bundle["not_evaluated"]}
    first = next(report for report in found if report["object"].endswith("#1"))
    assert "e_aki_ski_mismatch" in first["rules_run"]


def test_a_rule_without_its_data_is_not_evaluated_and_never_passed(lint: CommandLine, leaf: Path) -> None:
    (report,) = reports(lint("lint", leaf, "--json", *AT))
    unjudged = {each["rule"]: each["reason"] for each in report["not_evaluated"]}
    assert "no list of weak keys is configured" in unjudged["e_debian_weak_key"]
    assert not set(unjudged) & set(report["rules_run"])


def test_overrides_come_from_the_configuration_and_show_in_the_report(
    lint: CommandLine, tmp_path: Path, leaf: Path
) -> None:
    lint.home.mkdir()
    (lint.home / "chargepki.toml").write_text(
        '[lint]\nserial_number = "X"\n[lint.severity]\nn_v2g2_ku_secc_keyagreement = "error"\ne_aki_missing = "off"\n'
    )
    done = lint("lint", leaf, "--json", *AT, code=1)
    (report,) = reports(done)
    assert [finding["severity"] for finding in report["findings"]] == ["error"]
    assert {each["rule"]: each["severity"] for each in report["overrides"]} == {
        "n_v2g2_ku_secc_keyagreement": "error",
        "e_aki_missing": "off",
    }
    assert "e_aki_missing" not in report["rules_run"]
    assert "override: e_aki_missing is off" in lint("lint", leaf, *AT, code=1).out
    # The same file still configures everything else.
    lint("config", "show")


def test_unverified_rules_can_be_switched_off_together(lint: CommandLine, leaf: Path) -> None:
    (report,) = reports(lint("lint", leaf, "--no-unverified", "--json", *AT))
    assert report["findings"] == []
    assert "n_v2g2_ku_secc_keyagreement" in {each["rule"] for each in report["overrides"]}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[lint.severity]\nno_such_rule = "off"\n', "no rule"),
        ('[lint.severity]\ne_aki_missing = "fatal"\n', "no severity"),
        ("[lint]\nunverified = 1\n", "true or false"),
        ("[lint]\ncolour = 1\n", "unknown setting"),
        ('lint = "x"\n', "must be a table"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(lint: CommandLine, leaf: Path, text: str, word: str) -> None:
    lint.home.mkdir()
    (lint.home / "chargepki.toml").write_text(text)
    assert word in lint.run("lint", leaf).check_one_error(3).stderr


def test_rules_can_be_listed(lint: CommandLine) -> None:
    rules = lint("lint", "--list-rules", "--json").json()["rules"]
    assert len(rules) == len(all_rules())
    assert {rule["judges"] for rule in rules} >= {"certificate", "crl", "csr", "ocsp-response", "collection"}


def test_what_is_unverified_is_a_warning_at_most() -> None:
    assert [
        rule.id
        for rule in all_rules()
        if rule.unverified and Severity.ERROR in (rule.severity, *rule.severity_by_standard.values())
    ] == []


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"{}", b"[1", b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"]
)
def test_a_file_without_anything_to_judge_is_one_clear_error(lint: CommandLine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    lint.run("lint", tmp_path / "x").check_one_error(1)


# ---------------------------------------------------------------- SARIF
@pytest.mark.foreign
def test_sarif_is_valid(lint: CommandLine, tmp_path: Path, sarif_schema: dict[str, Any]) -> None:
    folder = tmp_path / "broken"
    for each in vectors():
        if not each.accept and each.judges != "certificate":
            (folder / each.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / each.file).write_bytes(each.data)
    (folder / "malformed.der").write_bytes(LEAF[:100])
    lint.home.mkdir()
    (lint.home / "chargepki.toml").write_text('[lint.severity]\ne_aki_missing = "notice"\nw_csr_dc = "off"\n')
    log = lint("lint", folder, "--format", "sarif", *AT, code=1).json()
    jsonschema.validators.validator_for(sarif_schema)(sarif_schema).validate(log)
    (run,) = log["runs"]
    assert {result["level"] for result in run["results"]} == {"error", "warning", "note", "none"}
    named = [run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] for result in run["results"]]
    assert named == [result["ruleId"] for result in run["results"]]
    assert run["invocations"][0]["ruleConfigurationOverrides"]


def test_sarif_gives_the_byte_offset_in_a_der_file(lint: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.der").write_bytes(LEAF + b"\0")
    log = lint("lint", tmp_path / "x.der", "--format", "sarif", *AT, code=1).json()
    result = next(result for result in log["runs"][0]["results"] if result["ruleId"] == "e_der_strict")
    assert result["locations"][0]["physicalLocation"]["region"]["byteOffset"] == len(LEAF)


@pytest.mark.parametrize("form", ["text", "json", "sarif"])
def test_hostile_names_and_values_are_judged_and_steer_no_terminal(
    lint: CommandLine, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ("\x1b[2J.der", "\udcff.der"):
        (folder / name).write_bytes(LEAF[:100])
    (folder / "data.json").write_text('[{"hashAlgorithm": [], "issuerNameHash": "\\u001b[2J\\ud800"}]')
    (folder / "\x1b[2J.txt").write_text("nothing")
    done = lint("lint", folder, "--format", form, "-v", *AT, code=1)
    assert "\x1b" not in done.out + done.stderr and "Traceback" not in done.stderr
    assert "1 file skipped" in done.stderr


def test_an_issuer_that_cannot_be_read_is_named(lint: CommandLine, leaf: Path, tmp_path: Path) -> None:
    (tmp_path / "issuer.pem").write_text(to_pem("CERTIFICATE", b"garbage"))
    assert "issuer.pem" in lint.run("lint", leaf, "--issuer", tmp_path / "issuer.pem").check_one_error(1).stderr


# ---------------------------------------------------------------- a live endpoint


def test_the_chain_of_a_tls_endpoint_is_judged(lint: CommandLine, tmp_path: Path) -> None:
    key = private_keys.serialise_private_key(public_test_key(keys.KeyAlgorithm.SECP256R1, 4))
    with tls_server(tmp_path, pem(LEAF, SUB2, SUB1, V2G_ROOT), key) as port:
        done = lint("lint", f"tls://127.0.0.1:{port}", "--json", *AT, code=1)
    bundle = next(report for report in reports(done) if report["kind"] == "bundle")
    assert {finding["rule"] for finding in bundle["findings"]} == {"e_root_in_handshake_chain"}
    assert "e_wrong_anchor" in bundle["rules_run"]


def test_an_endpoint_that_is_not_there_is_exit_4(lint: CommandLine) -> None:
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    lint.run("lint", f"tls://127.0.0.1:{port}").check_one_error(4)


@pytest.mark.parametrize("operand", ["tls://", "tls://host", "tls://host:0", "tls://host:99999", "tls://user@host:1"])
def test_an_operand_that_is_no_endpoint_is_refused(lint: CommandLine, operand: str) -> None:
    lint.run("lint", operand).check_one_error(1)


# ---------------------------------------------------------------- the second opinion
def test_pkilints_quarrel_with_the_domain_component_is_explained(lint: CommandLine, leaf: Path) -> None:
    pytest.importorskip("pkilint", reason="needs the extra 'lint'")
    (report,) = reports(lint("lint", leaf, "--deep", "--json", *AT))
    (quarrel,) = [finding for finding in report["findings"] if "domain_components" in finding["rule"]]
    assert quarrel["severity"] == "notice"
    assert "ISO 15118" in quarrel["hint"]


def test_pkilint_finds_on_its_own(lint: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("pkilint", reason="needs the extra 'lint'")
    draft = PublicDraft.of("ocpp/charging-station")
    draft.not_before, draft.not_after = draft.not_after, draft.not_before
    (tmp_path / "x.pem").write_text(to_pem("CERTIFICATE", draft.certificate()))
    (report,) = reports(lint("lint", tmp_path / "x.pem", "--deep", "--json", *AT, code=1))
    assert any(
        finding["rule"].startswith("pkilint:") and finding["severity"] == "error" for finding in report["findings"]
    )


def test_a_list_of_weak_keys_beside_the_configuration_is_used(lint: CommandLine, tmp_path: Path) -> None:
    weak = vector("e_debian_weak_key")
    assert weak.settings.weak_keys is not None
    lint.home.mkdir()
    (lint.home / "weak.txt").write_text("# Debian's form\n" + "\n".join(weak.settings.weak_keys.moduli))
    (lint.home / "chargepki.toml").write_text('[lint]\nweak_keys = "weak.txt"\n')
    (tmp_path / "x.der").write_bytes(weak.data)
    (report,) = reports(lint("lint", tmp_path / "x.der", "--json", *AT, code=1))
    assert [finding["rule"] for finding in report["findings"]] == ["e_debian_weak_key"]
    (lint.home / "weak.txt").unlink()
    lint.run("lint", tmp_path / "x.der").check_one_error(4)
