"""The decisions of a station about its roots, one test a requirement (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.ocpp_security.trust_store import (
    InstalledRoot,
    InstallPlan,
    TrustPolicy,
    answer_listing,
    is_signed_by,
    plan_delete,
    plan_install,
    root_hash,
)
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import RootUse
from chargepki.pki.hashdata import CertificateHashData
from chargepki.pki.hashdata_defects import HashDefect
from chargepki.pki.pem import to_pem
from testkit.chains import AT, DAY, Made, make

OLD = make("Old CA", nth=1)
NEW = make("New CA", OLD, nth=2)
NEWEST = make("Newest CA", NEW, nth=3)
OTHER = make("Other CA", nth=4)
LEAF = make("leaf", OLD, nth=3)
POLICY = TrustPolicy()
CHECKS = TrustPolicy(additional_check=True)
C, M, V = RootUse.CSMS, RootUse.MANUFACTURER, RootUse.V2G


def pem(*made: Made) -> str:
    return "".join(to_pem("CERTIFICATE", each.der) for each in made)


def held(*pairs: tuple[RootUse, Made], fallback: Made | None = None) -> list[InstalledRoot]:
    found = [InstalledRoot(use, made.der) for use, made in pairs]
    return found + ([InstalledRoot(C, fallback.der, is_fallback=True)] if fallback else [])


def install(
    made: Made | str, installed: Sequence[InstalledRoot] = (), policy: TrustPolicy = POLICY, *, use: RootUse = C
) -> InstallPlan | str | None:
    """Return the plan, or the reason code of the refusal."""
    try:
        return plan_install(use, made if isinstance(made, str) else pem(made), installed, policy, AT)
    except OcppRefusal as refusal:
        assert isinstance(refusal.answer, StatusAnswer)
        assert refusal.answer.status == "Rejected"
        return refusal.answer.reason_code


def test_a_valid_root_is_installed() -> None:
    """M05.FR.01, FR.02; several of one use are allowed."""
    assert install(OTHER, held((C, OLD))) == InstallPlan(InstalledRoot(C, OTHER.der))


@pytest.mark.parametrize(
    "bad",
    [
        make("leaf", ca=False),
        make("Expired CA", end=AT - timedelta(seconds=1)),
        make("Future CA", start=AT + timedelta(minutes=6), end=AT + DAY),
        make("Bare CA", bare=True),
        make("No signer CA", bits=("digital_signature",)),
        make("Sub CA", OTHER, nth=6),
        LEAF,
    ],
    ids=lambda made: made.certificate.subject.rfc4514_string(),
)
def test_what_is_no_valid_root_is_rejected(bad: Made) -> None:
    """M05.FR.07 (1.6: FR.06), TC_M_07; ocpp-security 12, rows 29 and 30."""
    assert install(bad, held((C, OLD))) == "InvalidCertificate"


@pytest.mark.parametrize("text", ["", "no pem", pem(OLD, OTHER), pem(OLD)[:200], to_pem("CERTIFICATE", b"0\0")])
def test_what_is_not_one_certificate_is_rejected(text: str) -> None:
    assert install(text) == "InvalidCertificate"


def test_a_signature_that_fails_is_rejected() -> None:
    octets = bytearray(OTHER.der)
    octets[-3] ^= 1
    assert install(to_pem("CERTIFICATE", bytes(octets))) == "InvalidCertificate"


def test_a_clock_that_is_slow_by_five_minutes_is_forgiven() -> None:
    """ocpp-security 12, row 21."""
    assert isinstance(install(make("Soon CA", start=AT + timedelta(minutes=5))), InstallPlan)


def test_a_full_store_rejects_and_a_known_root_needs_no_room() -> None:
    """1.6 M05.FR.03, 2.x M05.FR.06; M05.FR.17."""
    full = TrustPolicy(max_certificates=2)
    installed = held((C, OLD), (M, OTHER))
    assert install(NEW, installed, full) == "OutOfStorage"
    assert install(OLD, installed, full) == InstallPlan(InstalledRoot(C, OLD.der), replaces=True)


def test_the_additional_check_wants_the_signature_of_the_old_root() -> None:
    """2.x M05.FR.09 to FR.12 (1.6: FR.08 to FR.11); TC_M_09."""
    assert install(OTHER, held((C, OLD)), CHECKS) == "InvalidCertificate"
    assert install(NEW, held((C, OLD)), CHECKS) == InstallPlan(InstalledRoot(C, NEW.der), fallback=OLD.der)
    # Other uses, and the first CSMS root, are no replacement.
    assert install(OTHER, held((C, OLD)), CHECKS, use=M) == InstallPlan(InstalledRoot(M, OTHER.der))
    assert install(OTHER, (), CHECKS) == InstallPlan(InstalledRoot(C, OTHER.der))
    # The root that is the fallback already makes room for the next one.
    chain = held((C, NEW), fallback=OLD)
    expected = InstallPlan(InstalledRoot(C, NEWEST.der), fallback=NEW.der, drops=(OLD.der,))
    assert install(NEWEST, chain, CHECKS) == expected
    assert install(make("Second CA", OLD, nth=7), chain, CHECKS) == "InvalidCertificate"


def test_an_unsecured_connection_changes_nothing_unless_that_is_wanted() -> None:
    """ocpp-security 12, row 32."""
    installed, without = held((C, OLD), (C, OTHER)), TrustPolicy(needs_tls=False)
    with pytest.raises(OcppRefusal) as refused:
        plan_install(C, pem(NEW), installed, POLICY, AT, over_tls=False)
    assert refused.value.answer == StatusAnswer("Rejected", "UnsupportedRequest")
    assert plan_install(C, pem(NEW), installed, without, AT, over_tls=False).root.der == NEW.der
    assert plan_delete(hash_of(OTHER), installed, POLICY, over_tls=False).status == "Failed"
    assert plan_delete(hash_of(OTHER), installed, without, over_tls=False).status == "Accepted"


def hash_of(made: Made, issuer: Made | None = None, algorithm: str = "SHA256") -> dict[str, str]:
    return CertificateHashData.of(made.der, (issuer or made).der, algorithm).to_wire()


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_a_root_is_deleted_by_any_hash_and_spelling(algorithm: str, case: object) -> None:
    """M04.FR.01, FR.02, FR.07; TC_076, TC_M_20: all three algorithms."""
    told = {name: text.upper() if case is str.upper else text for name, text in hash_of(OTHER, None, algorithm).items()}
    plan = plan_delete(told, held((C, OLD), (V, OTHER)), POLICY)
    assert (plan.status, plan.removes) == ("Accepted", (InstalledRoot(V, OTHER.der),))


def test_every_use_of_a_certificate_goes_with_its_hash() -> None:
    """ocpp-security 12, row 34."""
    plan = plan_delete(hash_of(OTHER), held((C, OLD), (V, OTHER), (RootUse.MO, OTHER)), POLICY)
    assert len(plan.removes) == 2


def test_what_must_not_be_deleted_is_not() -> None:
    """M04.FR.03, FR.04, FR.06 (1.6: FR.05, FR.06); TC_M_22, TC_M_23."""
    installed = held((C, OLD), (C, OTHER), (M, OTHER))
    assert plan_delete(hash_of(NEW, OLD), installed, POLICY).status == "NotFound"
    own = [(LEAF.der, OLD.der)]
    assert plan_delete(hash_of(LEAF, OLD), installed, POLICY, own=own).status == "Failed"
    assert plan_delete(hash_of(OLD), installed, POLICY, in_use=OLD.der).status == "Failed"
    assert plan_delete(hash_of(OLD), installed, POLICY).status == "Accepted"
    # It would take the last manufacturer root along.
    assert plan_delete(hash_of(OTHER), installed, POLICY).status == "Failed"
    assert plan_delete(hash_of(OLD), held((C, OLD)), POLICY).status == "Failed"
    assert plan_delete(hash_of(OLD), held((C, OLD)), TrustPolicy(protects_last=False)).status == "Accepted"


def test_a_replaced_root_is_named_under_its_old_issuer() -> None:
    """ocpp-security 12, row 64: the hash of a new root that the old one signed uses the old root as issuer."""
    installed = held((C, NEW), fallback=OLD)
    assert root_hash(installed[0], installed, CHECKS) == hash_of(NEW, OLD)
    # Once the old one is gone, nobody can compute it.
    assert root_hash(installed[0], installed[:1], CHECKS) is None
    assert is_signed_by(NEW.der, OLD.der)
    assert not is_signed_by(NEW.der, OTHER.der)
    assert not is_signed_by(b"junk", OTHER.der)


def test_a_listing_tells_each_match_and_leaves_out_empty_lists() -> None:
    """M03.FR.01 to FR.04; ocpp-security 12, rows 7 and 8."""
    installed = held((C, OLD), (M, OTHER))
    assert answer_listing(OcppVersion.V16, [RootUse.CSMS], installed, POLICY) == {
        "status": "Accepted",
        "certificateHashData": [hash_of(OLD)],
    }
    assert answer_listing(OcppVersion.V201, [], installed, POLICY) == {
        "status": "Accepted",
        "certificateHashDataChain": [
            {"certificateType": "CSMSRootCertificate", "certificateHashData": hash_of(OLD)},
            {"certificateType": "ManufacturerRootCertificate", "certificateHashData": hash_of(OTHER)},
        ],
    }
    # TC_M_17: two uses of three.
    both = answer_listing(OcppVersion.V21, [C, M], [*installed, *held((V, NEWEST))], POLICY)
    assert [each["certificateType"] for each in both["certificateHashDataChain"]] == [
        "CSMSRootCertificate", "ManufacturerRootCertificate",
    ]  # fmt: skip
    for version, use in ((OcppVersion.V16, M), (OcppVersion.V201, V)):
        assert answer_listing(version, [use], held((C, OLD)), POLICY) == {"status": "NotFound"}


def test_a_v2g_chain_is_listed_leaf_first_with_its_sub_cas() -> None:
    """M03.FR.05; TC_M_15; ocpp-security 12, row 9."""
    root = make("V2G Root CA", nth=8)
    sub1 = make("Sub1 CA", root, nth=9)
    sub2 = make("Sub2 CA", sub1, nth=10)
    secc = make("secc", sub2, nth=11)
    chain = (secc.der, sub2.der, sub1.der, root.der)
    answer = answer_listing(OcppVersion.V21, [RootUse.V2G_CHAIN], held((V, root)), POLICY, chains=[chain])
    assert answer["certificateHashDataChain"] == [
        {
            "certificateType": "V2GCertificateChain",
            "certificateHashData": hash_of(secc, sub2),
            "childCertificateHashData": [hash_of(sub2, sub1), hash_of(sub1, root)],
        }
    ]


def test_a_station_that_errs_finds_only_its_own_form() -> None:
    errs = TrustPolicy(hash_defects=frozenset({HashDefect.KEY_INFO, HashDefect.NAME_OF_SUBJECT}))
    installed = held((C, OLD), (V, OTHER))
    told = root_hash(installed[1], installed, errs)
    assert told is not None
    assert told["issuerKeyHash"] != hash_of(OTHER)["issuerKeyHash"]
    assert plan_delete(hash_of(OTHER), installed, errs).status == "NotFound"
    assert plan_delete(told, installed, errs).status == "Accepted"


def test_a_station_that_takes_anything_shows_what_the_others_refuse() -> None:
    assert isinstance(install(LEAF, (), TrustPolicy(takes_anything=True)), InstallPlan)
