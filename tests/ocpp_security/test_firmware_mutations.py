"""The mutation pack: our own verifier gives each case the stated verdict for the stated reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chargepki.ocpp_security.events import SecurityEvent
from chargepki.ocpp_security.firmware_mutations import MutationCase, MutationPack, build_pack, judge
from chargepki.ocpp_security.firmware_verdict import FirmwareRefusal
from chargepki.ocpp_security.firmware_version import (
    ImageLabel,
    build_label,
    check_no_rollback,
    read_label,
    version_key,
)
from chargepki.pki.errors import InputError
from chargepki.pki.pem import pem_blocks
from testkit.firmware import IMAGE

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LABEL = ImageLabel("Acme", "M1", "1.2.0")

# Every kind of fault that a station must not fall for.
DEMANDED = {
    "first-bit-flipped", "truncated", "extended", "signature-of-another-image", "swapped-signature",
    "other-key-of-the-same-name", "other-root-of-the-same-name", "expired", "not-yet-valid", "revoked",
    "wrong-key-usage", "wrong-extended-key-usage", "intermediate-in-chain", "intermediate-not-sent", "rsa-pkcs1-v15",
    "ecdsa-raw", "ecdsa-r-zero", "ecdsa-s-too-large", "rsa-pkcs1-md5", "ecdsa-sha1", "rsa-pss-sha1", "another-image",
    "rolled-back", "good-high-s", "good-no-salt", "good-longest-salt",
}  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutations") / "image"
    path.write_bytes(build_label(LABEL) + IMAGE)
    return path


@pytest.fixture(scope="module")
def pack(image: Path) -> MutationPack:
    return build_pack(image, now=NOW)


@pytest.fixture(scope="module")
def files(pack: MutationPack, image: Path) -> Mapping[str, Path]:
    found = {}
    for name, chunks in pack.images.items():
        found[name] = image.with_name(name)
        found[name].write_bytes(b"".join(chunks()))
    return found


def test_the_pack_has_every_demanded_case_once(pack: MutationPack) -> None:
    names = [case.id for case in pack.cases]
    assert len(names) == len(set(names))
    assert set(names) >= DEMANDED
    assert sum(case.rule is not None for case in pack.cases) >= 25
    assert {case.image for case in pack.cases} == set(pack.images)


def test_each_case_gets_the_stated_verdict_for_the_stated_reason(pack: MutationPack, files: Mapping[str, Path]) -> None:
    root = pem_blocks(pack.root_pem.encode(), max_bytes=1 << 16)[0].der
    for case in pack.cases:
        try:
            judge(case, files[case.image], root, pack.crl, NOW)
        except FirmwareRefusal as refusal:
            assert refusal.rule == case.rule, (case.id, refusal)
            _check_expectation(case, refusal)
        else:
            assert case.rule is None, case.id
            assert (case.answers, case.statuses[-1], case.event) == (
                ("Accepted",), "Installed", SecurityEvent.FIRMWARE_UPDATED,
            )  # fmt: skip


def _check_expectation(case: MutationCase, refusal: FirmwareRefusal) -> None:
    assert case.event is refusal.event
    if case.statuses:
        assert (case.answers, case.statuses[-1]) == (("Accepted",), refusal.status)
    else:
        assert case.answers[0] == refusal.status


def test_an_older_image_of_the_makers_own_is_the_case_of_a_rollback(tmp_path: Path) -> None:
    image, older = tmp_path / "image", tmp_path / "older"
    image.write_bytes(IMAGE)
    older.write_bytes(IMAGE[:1000])
    assert all(case.versions is None for case in build_pack(image, now=NOW).cases)
    (case,) = [case for case in build_pack(image, now=NOW, older=older).cases if case.versions]
    assert case.id == "rolled-back"


def test_an_image_too_small_to_be_mutated_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 63)
    with pytest.raises(InputError, match="63 bytes"):
        build_pack(tmp_path / "image", now=NOW)


def test_versions_have_an_order_and_only_newer_ones_pass() -> None:
    check_no_rollback("1.2.0", "1.2.0")
    check_no_rollback("1.10", "1.9")
    for version, installed in (("1.9", "1.10"), ("1.2.0-rc1", "1.2.0"), ("1.2", "1.2.1")):
        with pytest.raises(FirmwareRefusal) as caught:
            check_no_rollback(version, installed)
        assert (caught.value.status, caught.value.event) == ("InstallVerificationFailed", None)
    for nonsense in ("", "latest", "1" * 51):
        with pytest.raises(InputError):
            version_key(nonsense)


@pytest.mark.parametrize(
    "line", [b"", b"\x7fELF", b"chargepki-firmware {", b"chargepki-firmware []\n", b"chargepki-firmware {}\n"]
)
def test_an_image_without_a_label_has_none(line: bytes, image: Path, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(line)
    assert read_label(tmp_path / "image") is None
    assert read_label(image) == LABEL
