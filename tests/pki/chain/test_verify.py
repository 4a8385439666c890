"""Paths are found by signature, whatever the order of the bag, and every broken one is refused with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki.chain import Purpose, WorkBudget, order_chain, verify_chain
from chargepki.pki.chain.policy import POLICIES
from chargepki.pki.chain.refusals import PathRefusal
from chargepki.pki.errors import ChainError, ChargePkiError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey, spki_der
from testkit.chains import AT, DAY, Made, hierarchy, make
from testkit.drafts import Draft
from testkit.effort import examples
from testkit.requests import key_of

ROOT, SUB1, SUB2, LEAF = hierarchy()
CHAIN = (LEAF.der, SUB2.der, SUB1.der, ROOT.der)
STRANGERS = (
    make("Stranger CA", nth=4),
    make("Root CA", nth=5),  # an evil twin: the root's name, another key
    make("Sub 2 CA", make("Sub 1 CA", nth=5), path_length=0, nth=6),
)


def check(
    leaf: Made, *above: Made, purpose: Purpose = Purpose.ANY, at: datetime = AT, budget: WorkBudget | None = None
) -> tuple[bytes, ...]:
    """Validate with the last of *above* as the anchor."""
    *bag, root = above
    return verify_chain(
        leaf.der, [each.der for each in bag], [root.der], purpose=purpose, at=at, budget=budget
    ).certificates


def refusal(leaf: Made, *above: Made, purpose: Purpose = Purpose.ANY, at: datetime = AT) -> str:
    with pytest.raises(ChainError) as caught:
        check(leaf, *above, purpose=purpose, at=at)
    assert caught.value.why, "a refusal gives its reason"
    assert caught.value.fix, "a refusal says what to do"
    return str(caught.value)


# ---------------------------------------------------------------- what is accepted


def test_a_chain_is_returned_leaf_first_with_its_anchor() -> None:
    chain = verify_chain(LEAF.der, [SUB2.der, SUB1.der], [ROOT.der], at=AT)
    assert chain.certificates == CHAIN
    assert (chain.leaf, chain.anchor, chain.at) == (LEAF.der, ROOT.der, AT)


@given(st.permutations([SUB1.der, SUB2.der, SUB2.der, ROOT.der, LEAF.der, *(each.der for each in STRANGERS)]))
@settings(max_examples=examples(60))
def test_every_order_of_the_bag_gives_the_same_chain(bag: Sequence[bytes]) -> None:
    anchors = [STRANGERS[1].der, ROOT.der]
    assert verify_chain(LEAF.der, bag, anchors, at=AT).certificates == CHAIN
    assert verify_chain(LEAF.der, bag, anchors[::-1], at=AT).certificates == CHAIN
    assert order_chain(LEAF.der, bag) == list(CHAIN[:3])


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_every_key_algorithm_of_ours_verifies(algorithm: KeyAlgorithm) -> None:
    root = make("Root CA", algorithm=algorithm, nth=0)
    # One RSA key each suffices here: they take seconds to make.
    leaf = make("Leaf", root, algorithm=KeyAlgorithm.SECP256R1, nth=1)
    assert check(leaf, root) == (leaf.der, root.der)


def test_a_leaf_that_is_itself_an_anchor_is_a_path_of_one() -> None:
    assert check(ROOT, ROOT) == (ROOT.der,)
    assert "expired" in refusal(ROOT, ROOT, at=AT + 2 * DAY)


def test_both_ends_of_the_validity_are_inclusive() -> None:
    for at in (AT - DAY, AT + DAY):
        assert check(LEAF, SUB2, SUB1, ROOT, at=at) == CHAIN
    assert "not yet valid" in refusal(LEAF, SUB2, SUB1, ROOT, at=AT - DAY - timedelta(seconds=1))
    assert "expired" in refusal(LEAF, SUB2, SUB1, ROOT, at=AT + DAY + timedelta(seconds=1))


def test_broken_strangers_in_the_bag_do_not_matter() -> None:
    bag = [b"", b"garbage", SUB1.der[:-1], SUB1.der, SUB2.der]
    assert verify_chain(LEAF.der, bag, [ROOT.der], at=AT).certificates == CHAIN


def test_a_re_issued_intermediate_with_another_validity_is_tried_too() -> None:
    expired = make("Sub 2 CA", SUB1, path_length=0, nth=2, start=AT - 5 * DAY, end=AT - 4 * DAY)
    assert check(LEAF, expired, SUB2, SUB1, ROOT) == CHAIN


def test_a_cross_certificate_leads_to_the_other_root() -> None:
    other = make("Other CA", nth=7)
    cross = make("Root CA", other, nth=0)
    assert check(LEAF, SUB2, SUB1, cross, other) == (LEAF.der, SUB2.der, SUB1.der, cross.der, other.der)


def test_a_self_issued_ca_does_not_count_against_the_path_length() -> None:
    root = make("Root CA", path_length=0, nth=0)
    renewed = make("Root CA", root, nth=1)
    assert len(check(make("Leaf", renewed, nth=3), renewed, root)) == 3


def test_critical_key_identifiers_and_pointers_of_iso15118_20_are_understood() -> None:
    chain = []
    for role, number in (("emsp-sub2", 1), ("contract", 2)):
        draft = Draft.of(f"iso15118-20/{role}")
        draft.spki = der_of_key(number)
        chain.append(draft)
    root = Draft.of("iso15118-20/emsp-root")
    root.spki = der_of_key(0)
    sub, leaf = chain
    sub.issuer, leaf.issuer = root.subject, sub.subject
    ders = [
        draft.certificate(key_of(KeyAlgorithm.SECP521R1, signer)) for draft, signer in ((leaf, 1), (sub, 0), (root, 0))
    ]
    at = AT
    assert verify_chain(ders[0], [ders[1]], [ders[2]], purpose=Purpose.CONTRACT, at=at).certificates == tuple(ders)


def der_of_key(number: int) -> bytes:
    return spki_der(key_of(KeyAlgorithm.SECP521R1, number))


# ---------------------------------------------------------------- what is refused


@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=examples(150))
def test_every_changed_byte_of_a_signed_part_is_refused(which: int, at: int, change: int) -> None:
    data = CHAIN[which]
    tbs = (LEAF, SUB2, SUB1)[which].tbs
    offset = data.index(tbs) + at % len(tbs)
    spoilt = data[:offset] + bytes((data[offset] ^ change,)) + data[offset + 1 :]
    leaf, *bag = [spoilt if each == data else each for each in CHAIN[:3]]
    with pytest.raises(ChainError):
        verify_chain(leaf, bag, [ROOT.der], at=AT)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=60), max_size=3))
@settings(max_examples=examples(100))
def test_any_bytes_are_refused_with_one_kind_of_error(leaf: bytes, bag: list[bytes]) -> None:
    for call in (lambda: verify_chain(leaf, bag, [ROOT.der], at=AT), lambda: order_chain(leaf, bag)):
        with pytest.raises(ChainError):
            call()
    assert order_chain(LEAF.der, bag) == [LEAF.der]


def test_a_missing_intermediate_is_named_by_the_one_above_which_it_lacks() -> None:
    text = refusal(LEAF, SUB2, ROOT)
    assert "no issuer found for CN=Sub 2 CA" in text
    assert "position 1" in text


def test_an_evil_twin_of_the_root_does_not_verify() -> None:
    assert "no issuer found for CN=Sub 1 CA" in refusal(LEAF, SUB2, SUB1, STRANGERS[1])


def test_a_root_that_is_not_an_anchor_is_not_trusted() -> None:
    assert "not among the anchors" in refusal(LEAF, SUB2, SUB1, ROOT, STRANGERS[0])


def test_no_anchor_is_an_error_of_its_own() -> None:
    with pytest.raises(ChainError, match="no anchor"):
        verify_chain(LEAF.der, [SUB2.der], [], at=AT)


WEAK_KEYS: dict[str, PrivateKey] = {
    "RSA of 1024 bits": rsa.generate_private_key(65537, 1024),
    "RSA of 2047 bits": rsa.generate_private_key(65537, 2047),
    "curve secp192r1": ec.generate_private_key(ec.SECP192R1()),
}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("what", list(WEAK_KEYS))
def test_a_weak_key_spoils_the_path_wherever_it_is(what: str, place: int) -> None:
    key = WEAK_KEYS[what]
    root = make("Root CA", key=key if place == 2 else None, nth=0)
    sub = make("Sub CA", root, key=key if place == 1 else None, nth=1)
    leaf = make("Leaf", sub, key=key if place == 0 else None, nth=2)
    assert what in refusal(leaf, sub, root)
    with pytest.raises(PathRefusal, match="key too weak") as caught:
        check(leaf, sub, root)
    assert (caught.value.rule, caught.value.position) == ("weak-key", place)


def test_the_least_strength_is_enough() -> None:
    for key in (rsa.generate_private_key(3, 2048), ec.generate_private_key(ec.SECP224R1())):
        root = make("Root CA", key=key)
        leaf = make("Leaf", root, nth=1)
        assert check(leaf, root) == (leaf.der, root.der)


def test_a_leaf_that_signs_is_no_ca() -> None:
    assert "not a CA" in refusal(make("Victim", LEAF, nth=4), LEAF, SUB2, SUB1, ROOT)


def test_a_ca_without_basic_constraints_is_no_ca() -> None:
    bare = make("Bare CA", ROOT, nth=1, bare=True)
    assert "not a CA" in refusal(make("Leaf", bare, nth=3), bare, ROOT)


def test_a_ca_without_key_cert_sign_may_not_sign() -> None:
    sub = make("Sub CA", ROOT, nth=1, bits=("crl_sign",))
    assert "keyCertSign" in refusal(make("Leaf", sub, nth=3), sub, ROOT)


def test_a_path_longer_than_its_path_length_is_refused() -> None:
    third = make("Sub 3 CA", SUB2, nth=4)
    text = refusal(make("Leaf", third, nth=5), third, SUB2, SUB1, ROOT)
    assert "pathLen" in text


def test_the_anchors_path_length_counts() -> None:
    root = make("Root CA", path_length=0, nth=0)
    sub = make("Sub CA", root, nth=1)
    assert "path too long" in refusal(make("Leaf", sub, nth=3), sub, root)


def test_an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_not() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    assert "unknown critical" in refusal(make("Leaf", ROOT, nth=3, extensions=[(unknown, True)]), ROOT)
    leaf = make("Leaf", ROOT, nth=3, extensions=[(unknown, False)])
    assert check(leaf, ROOT) == (leaf.der, ROOT.der)


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (x509.NameConstraints([x509.DirectoryName(ROOT.certificate.subject)], None), "outside of the permitted"),
        (x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None), "no acceptable certificate"),
    ],
)
def test_constraints_count_whether_they_are_critical_or_not(
    extension: x509.ExtensionType, words: str, critical: bool
) -> None:
    sub = make("Sub CA", ROOT, nth=1, extensions=[(extension, critical)])
    assert words in refusal(make("Leaf", sub, nth=3), sub, ROOT)


def test_an_extension_that_appears_twice_is_refused() -> None:
    draft = Draft.of("ocpp/charging-station")
    draft.extensions.append(draft.extensions[0])
    root = Draft.of("ocpp/cso-root")
    draft.issuer = root.subject
    signer = key_of(KeyAlgorithm.SECP256R1, 0)
    with pytest.raises(ChainError, match="appears twice"):
        verify_chain(draft.certificate(signer), [], [root.certificate(signer)], at=AT)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(TypeError):
        verify_chain(LEAF.der, [], [ROOT.der], at=datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test


def test_different_algorithms_inside_and_outside_do_not_verify() -> None:
    inner = LEAF.der
    outer = inner.replace(bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303"))
    spoilt = inner[: inner.index(LEAF.tbs) + len(LEAF.tbs)] + outer[inner.index(LEAF.tbs) + len(LEAF.tbs) :]
    assert spoilt != inner
    with pytest.raises(ChainError, match="no issuer found"):
        verify_chain(spoilt, [SUB2.der, SUB1.der], [ROOT.der], at=AT)


# ---------------------------------------------------------------- purposes


@pytest.mark.parametrize("purpose", [each for each in Purpose if each is not Purpose.ANY])
def test_a_ca_is_no_leaf_of_any_purpose(purpose: Purpose) -> None:
    assert "a CA cannot be used" in refusal(SUB2, SUB1, ROOT, purpose=purpose)


@pytest.mark.parametrize("purpose", [each for each in Purpose if POLICIES[each].key_usage])
def test_a_leaf_that_may_not_sign_is_refused_for_every_purpose(purpose: Purpose) -> None:
    leaf = make("Leaf", ROOT, nth=3, bits=("key_agreement",))
    assert "digitalSignature" in refusal(leaf, ROOT, purpose=purpose)


@pytest.mark.parametrize(
    ("purpose", "good", "bad"),
    [
        (Purpose.CSMS, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
        (Purpose.CHARGING_STATION, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        (Purpose.VEHICLE, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        (Purpose.FIRMWARE_SIGNING, ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH),
    ],
)
def test_an_extended_key_usage_must_fit_the_purpose(
    purpose: Purpose, good: x509.ObjectIdentifier, bad: x509.ObjectIdentifier
) -> None:
    for usage in (good, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, None):
        more = [] if usage is None else [(x509.ExtendedKeyUsage([usage]), False)]
        assert check(make("Leaf", ROOT, nth=3, extensions=more), ROOT, purpose=purpose)
    leaf = make("Leaf", ROOT, nth=3, extensions=[(x509.ExtendedKeyUsage([bad]), False)])
    assert "ExtendedKeyUsage lacks" in refusal(leaf, ROOT, purpose=purpose)


@pytest.mark.parametrize(("purpose", "dc"), [(Purpose.SECC, "CPO"), (Purpose.CPS, "CPS")])
def test_an_iso15118_2_leaf_needs_its_domain_component(purpose: Purpose, dc: str) -> None:
    assert check(make("Leaf", SUB2, nth=3, dc=dc), SUB2, SUB1, ROOT, purpose=purpose)
    for wrong in (None, dc.lower(), "V2G"):
        assert f"{dc} is demanded" in refusal(make("Leaf", SUB2, nth=3, dc=wrong), SUB2, SUB1, ROOT, purpose=purpose)
    # A private root signs its leaves directly and is not held to it.
    assert check(make("Leaf", ROOT, nth=3), ROOT, purpose=purpose)


# ---------------------------------------------------------------- work budget


def test_hostile_bags_are_refused_instead_of_explored() -> None:
    clique = [make(f"{i} CA", nth=i) for i in range(6)]
    bag = [
        make(f"{child} CA", clique[parent], nth=child).der
        for child in range(6)
        for parent in range(6)
        if child != parent
    ]
    leaf = make("Leaf", clique[0], nth=7)
    budget = WorkBudget(signatures=1000, steps=500)
    with pytest.raises(ChainError, match="500 steps"):
        verify_chain(leaf.der, bag, [STRANGERS[0].der], at=AT, budget=budget)
    with pytest.raises(ChainError, match="5 signature checks"):
        verify_chain(leaf.der, bag, [STRANGERS[0].der], at=AT, budget=dataclasses.replace(budget, signatures=5))


def test_too_many_too_large_and_too_deep_are_refused() -> None:
    with pytest.raises(ChainError, match="3 certificates to choose from"):
        check(LEAF, SUB2, SUB1, ROOT, budget=WorkBudget(certificates=2))
    with pytest.raises(ChainError, match=r"has \d+ bytes"):
        check(LEAF, SUB2, SUB1, ROOT, budget=WorkBudget(certificate_bytes=100))
    with pytest.raises(ChainError, match="more than 1 CAs"):
        check(LEAF, SUB2, SUB1, ROOT, budget=WorkBudget(depth=1))


# ---------------------------------------------------------------- ordering


def test_an_incomplete_bag_gives_as_much_of_the_chain_as_there_is() -> None:
    assert order_chain(LEAF.der, [SUB1.der, ROOT.der]) == [LEAF.der]
    assert order_chain(LEAF.der, [SUB2.der, ROOT.der]) == [LEAF.der, SUB2.der]


def test_a_leaf_under_a_private_root_stands_alone() -> None:
    leaf = make("Leaf", ROOT, nth=3).der
    assert order_chain(leaf, [ROOT.der]) == [leaf]


# ---------------------------------------------------------------- an independent judge


def _other_judge(leaf: Made, bag: Sequence[Made], root: Made) -> bool:
    permit = ExtensionPolicy.permit_all()
    ca = permit.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None).require_present(
        x509.KeyUsage, Criticality.AGNOSTIC, _may_certify
    )
    verifier = (
        PolicyBuilder()
        .store(Store([root.certificate]))
        .time(AT)
        .max_chain_depth(8)
        .extension_policies(ca_policy=ca, ee_policy=permit)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf.certificate, [each.certificate for each in bag])
    except VerificationError:
        return False
    return True


def _may_certify(_policy: object, _certificate: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is None or not extension.key_cert_sign:
        raise ValueError("keyCertSign is missing")


@st.composite
def _chains(draw: st.DrawFn) -> tuple[Made, list[Made], Made]:
    """Draw a chain in which each certificate may or may not have a fault that both judges know."""
    windows = [(AT - DAY, AT + DAY)] * 6 + [(AT - 3 * DAY, AT - DAY), (AT + DAY, AT + 3 * DAY)]
    lengths = st.one_of(st.none(), st.integers(0, 2))

    def ca(name: str, issuer: Made | None, nth: int) -> Made:
        start, end = draw(st.sampled_from(windows))
        bits = draw(st.sampled_from([("key_cert_sign", "crl_sign")] * 6 + [("crl_sign",)]))
        return make(name, issuer, path_length=draw(lengths), nth=nth, start=start, end=end, bits=bits, ca=True)

    root = ca("Root CA", None, 0)
    path: list[Made] = []
    for nth in range(1, draw(st.integers(1, 4))):
        path.append(ca(f"Sub {nth} CA", path[-1] if path else root, nth))
    start, end = draw(st.sampled_from(windows))
    leaf = make("Leaf", path[-1] if path else root, nth=5, start=start, end=end)
    missing = draw(st.integers(0, 12))
    bag = [each for index, each in enumerate(path) if index != missing]
    return leaf, draw(st.permutations(bag)), root


@given(_chains())
@settings(max_examples=examples(80))
def test_an_independent_validator_gives_the_same_verdict(chain: tuple[Made, list[Made], Made]) -> None:
    leaf, bag, root = chain
    try:
        ours = bool(verify_chain(leaf.der, [each.der for each in bag], [root.der], at=AT))
    except ChargePkiError:
        ours = False
    assert ours == _other_judge(leaf, bag, root)
