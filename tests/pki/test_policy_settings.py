"""Which rules of the request policy can be set, and what a wrong setting is answered with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from chargepki.pki import names
from chargepki.pki.csr import parse_csr
from chargepki.pki.errors import InputError, UnavailableError
from chargepki.pki.policy import judge_request
from chargepki.pki.policy_settings import KNOWN_RULES, Mode, PolicySettings, Rate, load_policy_settings
from chargepki.pki.profiles import get_profile
from testkit.requests import EVEREST_EXTENSIONS, make_csr

STATION = get_profile("ocpp/charging-station")


def load(folder: Path, text: str) -> PolicySettings:
    path = folder / "chargepki.toml"
    path.write_text(text)
    return load_policy_settings(path)


def test_without_a_file_or_a_table_every_rule_does_what_it_does_by_default(tmp_path: Path) -> None:
    assert load_policy_settings(tmp_path / "absent.toml") == PolicySettings()
    settings = load(tmp_path, 'public_url = "http://pki.test"\n')
    assert settings == PolicySettings()
    assert {rule: settings.mode_of(rule) for rule in KNOWN_RULES} == dict(KNOWN_RULES)


def test_modes_rate_and_the_list_of_weak_keys_are_read(tmp_path: Path) -> None:
    (tmp_path / "weak.txt").write_text("0123456789abcdef0123\n")
    settings = load(
        tmp_path,
        '[policy]\nrate = "3/36h"\n[policy.rules]\nkey-reuse = "enforce"\nreplay = "off"\n'
        '[lint]\nweak_keys = "weak.txt"\n',
    )
    assert settings.mode_of("key-reuse") is Mode.ENFORCE and settings.mode_of("replay") is Mode.OFF
    assert settings.rate == Rate(3, timedelta(hours=36))
    assert settings.weak_keys is not None and settings.weak_keys.moduli == {"0123456789abcdef0123"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("policy = 1", "must be a table"),
        ("[policy]\nrates = '1/1h'", "policy.rates"),
        ("[policy]\nrate = 3", "must be text"),
        ("[policy]\nrate = '0/1h'", "is no rate"),
        ("[policy]\nrate = '1/1w'", "is no rate"),
        ("[policy.rules]\nkey-reused = 'warn'", "key-reused"),
        ("[policy.rules]\nkey-reuse = 'maybe'", "key-reuse"),
        ("[policy.rules]\nkey-reuse = 1", "key-reuse"),
        ("[policy.rules]\npossession = 'warn'", "possession"),
        ("[policy.rules]\nca-request = 'off'", "ca-request"),
        ("[policy.rules]\nsubject = 'off'", "subject"),
        ("[policy", "TOML"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert word in f"{caught.value.what} {caught.value.why}" and caught.value.fix


def test_a_list_of_weak_keys_that_is_not_there_is_no_silent_pass(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        load(tmp_path, '[lint]\nweak_keys = "absent.txt"\n')


def test_an_enforced_rule_refuses_what_it_would_only_remark_on(tmp_path: Path) -> None:
    request = parse_csr(make_csr(names.parse_rdns("CN=CS-1,O=Acme"), extensions=EVEREST_EXTENSIONS))
    verdict = judge_request(request, STATION)
    assert verdict.accepted and verdict.notices
    strict = load(tmp_path, '[policy.rules]\nextension = "enforce"\n').apply(verdict)
    assert {rule.rule for rule in strict.refusals} == {"extension"} and all(rule.fix for rule in strict.refusals)
    assert PolicySettings().apply(verdict) == verdict


def test_enforcing_the_subject_covers_each_of_its_attributes(tmp_path: Path) -> None:
    request = parse_csr(make_csr(names.parse_rdns("CN=CS-1,O=Acme,L=Berlin")))
    verdict = judge_request(request, STATION)
    assert verdict.accepted
    assert not load(tmp_path, '[policy.rules]\nsubject = "enforce"\n').apply(verdict).accepted
