"""Every profile's certificates and lists, judged by tools that are not ours.

Each profile is issued twice through the public API and one of the two is revoked. Four checks are asked of each tool:

* ``valid``: the chain is accepted, revocation left out;
* ``not-revoked``: it is accepted with the CRL of every issuer, where the tool demands one;
* ``revoked``: the revoked one is refused, and refused *as revoked*;
* ``crl``: the tool reads the list and verifies its signature.

fixtures/interop/expected.toml names what a tool does not do, and why. A pair that fails without standing there fails
the test, and so does one that stands there and passes.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chargepki.pki.profiles import list_profiles
from testkit.every_profile import EveryProfile, issue_every_profile
from testkit.foreign import ChainCase, Tool, Verdict, judge_by_nss, judge_by_strongswan, judge_chains, judge_crls, need
from testkit.layout import ROOT

pytestmark = pytest.mark.foreign

PROFILES = {profile.id: profile for profile in list_profiles()}
CHECKS = ("valid", "not-revoked", "revoked", "crl")


@dataclass(frozen=True, slots=True)
class Exception_:
    """One row of the table: what *tool* says of *check* for these profiles, and why."""

    tool: Tool
    profiles: tuple[str, ...]
    checks: tuple[str, ...]
    says: str
    why: str
    clause: str


def load_table() -> list[Exception_]:
    table = tomllib.loads((ROOT / "fixtures" / "interop" / "expected.toml").read_text(encoding="utf-8"))
    return [
        Exception_(
            Tool(row["tool"]), tuple(row["profiles"]), tuple(row["checks"]), row["says"], row["why"], row["clause"]
        )
        for row in table["not_accepted"]
    ]


TABLE = load_table()


@cache
def questions() -> EveryProfile:
    with TemporaryDirectory() as folder:
        return issue_every_profile(Path(folder))


@cache
def verdicts(tool: Tool) -> dict[str, Verdict]:
    """Return everything that *tool* says, asked once: by ``PROFILE|CHECK``."""
    return judge_chains(tool, questions().chains) | judge_crls(tool, questions().crls)


def checks_of(profile_id: str) -> tuple[str, ...]:
    profile = PROFILES[profile_id]
    if profile.is_root:
        return ("valid", "crl")
    if profile.is_ca and profile.role != "cross":
        return CHECKS
    return CHECKS[:-1]


def as_it_should(check: str, verdict: Verdict) -> bool:
    if check == "revoked":
        return not verdict.accepted and "revoked" in verdict.reason.lower()
    return verdict.accepted


@pytest.mark.parametrize("tool", Tool)
@pytest.mark.parametrize("profile_id", PROFILES)
def test_profile_is_judged_as_the_table_says(profile_id: str, tool: Tool) -> None:
    need(tool)
    for check in checks_of(profile_id):
        verdict = verdicts(tool)[f"{profile_id}|{check}"]
        rows = [row for row in TABLE if row.tool is tool and profile_id in row.profiles and check in row.checks]
        if check == "revoked":
            assert not verdict.accepted, f"{tool} accepts a revoked {profile_id}"
        if not rows:
            assert as_it_should(check, verdict), f"{check}: {verdict}"
            continue
        assert not as_it_should(check, verdict), f"{tool} passes {check}: take it out of the table"
        assert any(row.says in verdict.reason for row in rows), f"{check}: another reason than the table's: {verdict}"


# Two more judges, which take a process or three for each chain: leaves in CI, CAs in a campaign.
LEAVES = tuple(profile.id for profile in PROFILES.values() if not profile.is_ca)
CAS = tuple(profile.id for profile in PROFILES.values() if profile.is_ca)
SOME = [pytest.param(LEAVES, id="leaves"), pytest.param(CAS, id="cas", marks=pytest.mark.campaign)]


def asked(profiles: tuple[str, ...], check: str) -> list[ChainCase]:
    wanted = {f"{each}|{check}" for each in profiles}
    return [case for case in questions().chains if case.id in wanted]


@pytest.mark.parametrize("profiles", SOME)
def test_strongswan_accepts_every_profile_and_refuses_what_was_revoked(profiles: tuple[str, ...]) -> None:
    """Also those of the 2022 text of ISO 15118-20: it takes no offence at key identifiers that are critical."""
    refused = {name: each for name, each in judge_by_strongswan(asked(profiles, "valid")).items() if not each.accepted}
    assert not refused, refused
    revoked = judge_by_strongswan(asked(profiles[:3], "revoked"))
    assert revoked and not any(each.accepted for each in revoked.values()), revoked


@pytest.mark.parametrize("profiles", SOME)
def test_nss_accepts_every_profile_but_those_with_critical_key_identifiers(profiles: tuple[str, ...]) -> None:
    """By the usage that each is for; a leaf counts as an SSL client, which is the least that it asks of one."""
    verdicts: dict[str, Verdict] = {}
    for usage, chosen in (
        ("O", [each for each in profiles if each == "common/ocsp-signer"]),
        ("L", [each for each in profiles if PROFILES[each].is_ca]),
        ("C", [each for each in profiles if not PROFILES[each].is_ca and each != "common/ocsp-signer"]),
    ):
        verdicts |= judge_by_nss(asked(tuple(chosen), "valid"), usage)
    refused = {name.partition("|")[0] for name, each in verdicts.items() if not each.accepted}
    # ISO 15118-20:2022 Annex B marks them critical; a root's own extensions are not looked at, nor has a certificate
    # of the private environment one that NSS does not know.
    old = {each for each in profiles if each.startswith("iso15118-20/") and not PROFILES[each].is_root}
    assert refused == old - {"iso15118-20/private-secc"}
    assert all("unknown critical extension" in each.reason for each in verdicts.values() if not each.accepted)


def test_table_names_only_what_exists_and_explains_every_row() -> None:
    for row in TABLE:
        assert set(row.profiles) <= set(PROFILES)
        assert row.profiles
        assert set(row.checks) <= set(CHECKS)
        assert row.says
        assert row.why
        assert row.clause
        assert all(set(row.checks) <= set(checks_of(profile)) for profile in row.profiles), row


def test_no_pair_stands_twice_in_the_table() -> None:
    pairs = [(row.tool, profile, check) for row in TABLE for profile in row.profiles for check in row.checks]
    assert len(pairs) == len(set(pairs))
