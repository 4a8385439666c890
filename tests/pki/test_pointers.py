"""Pointers are written where the profile wants them and a public URL is known; their URLs are fit for a certificate."""

from __future__ import annotations

import pytest

from chargepki.pki.errors import InputError, PolicyRefusal
from chargepki.pki.pointers import NO_POINTERS, Pointers, check_public_url, choose_pointers
from chargepki.pki.profiles import get_profile, list_profiles
from chargepki.pki.profiles.base import Profile

URL = "http://pki.example.org"


def test_ocpp_leaves_name_all_three() -> None:
    assert choose_pointers(get_profile("ocpp/charging-station"), URL, "t-cso-sub@1") == Pointers(
        ocsp="http://pki.example.org/ocsp",
        crl="http://pki.example.org/crl/t-cso-sub@1.crl",
        ca_issuers="http://pki.example.org/ca/t-cso-sub@1.cer",
    )


def test_iso_15118_2_leaves_the_issuer_out_to_stay_below_800_bytes() -> None:
    pointers = choose_pointers(get_profile("iso15118-2/secc"), URL, "x@1")
    assert pointers.ocsp and pointers.crl
    assert pointers.ca_issuers is None


@pytest.mark.parametrize("role", ["v2g-root", "mo-root", "oem-root", "private-root", "private-secc"])
def test_roots_and_private_leaves_name_none(role: str) -> None:
    assert choose_pointers(get_profile(f"iso15118-2/{role}"), URL, "x@1") == NO_POINTERS


DEMANDING = {
    f"{standard}/{role}"
    for standard in ("iso15118-20", "iso15118-20-a1")
    for role in (
        "emsp-sub1", "emsp-sub2", "contract", "oem-sub1", "oem-sub2", "oem-provisioning",
        "vehicle-sub1", "vehicle-sub2", "vehicle",
    )
}  # fmt: skip


@pytest.mark.parametrize("profile", list_profiles(), ids=lambda profile: profile.id)
def test_v2g20_2590_2592_2599_without_a_url_only_those_profiles_refuse(profile: Profile) -> None:
    if profile.id in DEMANDING:
        with pytest.raises(PolicyRefusal, match="needs a revocation pointer") as caught:
            choose_pointers(profile, None, "x@1")
        assert "--public-url" in caught.value.fix
    else:
        assert choose_pointers(profile, None, "x@1") == NO_POINTERS


def test_a_trailing_slash_does_not_double() -> None:
    assert choose_pointers(get_profile("iso15118-2/secc"), URL + "/", "x@1").ocsp == URL + "/ocsp"


@pytest.mark.parametrize("good", [URL, "https://a.b:8443/pki", "http://127.0.0.1:8080", "http://[::1]:80"])
def test_http_urls_with_a_host_are_taken(good: str) -> None:
    assert check_public_url(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "", "ftp://x", "pki.example.org", "http://", "http:///x", "http://user:secret@x", "http://x/?a", "http://x#f",
        "http://x y", "http://b\xfccher", "http://x\n", "http://x:99999", "http://x:0", "http://" + "x" * 600,
        "http://[::1",
    ],
)  # fmt: skip
def test_urls_that_cannot_stand_in_a_certificate_are_refused_without_echoing_credentials(bad: str) -> None:
    with pytest.raises(InputError) as caught:
        check_public_url(bad)
    assert "secret" not in str(caught.value)
