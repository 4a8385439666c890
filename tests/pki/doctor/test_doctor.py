"""The doctor's intake, keys and limits: every container, hostile input, and that nothing of a key comes out."""

from __future__ import annotations

import json
import random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from chargepki.cli.output import jsonable
from chargepki.pki import private_keys
from chargepki.pki.doctor import Diagnosis, Heap, Limits, choose_chain, examine, to_json
from chargepki.pki.errors import InputError, NotFound, StateError
from chargepki.pki.pem import to_pem
from testkit.chains import AT, Made, hierarchy, make

PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def four() -> tuple[Made, ...]:
    """Root, sub-CA 1, sub-CA 2, leaf."""
    return hierarchy()


def pem(*made: Made) -> bytes:
    return "".join(to_pem("CERTIFICATE", each.der) for each in made).encode()


def diagnose(*files: tuple[str, bytes], passphrases: tuple[bytes, ...] = ()) -> Diagnosis:
    heap = Heap(lambda: passphrases)
    for name, data in files:
        heap.add(data, name)
    return examine(heap, at=AT)


def key_objects(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    return {each.name: each.fits for each in diagnosis.objects if each.kind == "private-key"}


def p12(four: tuple[Made, ...], passphrase: bytes = PASSPHRASE) -> bytes:
    root, sub1, sub2, leaf = (each.certificate for each in four)
    sealed = BestAvailableEncryption(passphrase)
    assert isinstance(four[3].key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(b"x", four[3].key, leaf, [root, sub1, sub2], sealed)


def test_pkcs12_is_opened_with_the_passphrase_and_its_key_fits(four: tuple[Made, ...]) -> None:
    diagnosis = diagnose(("store.p12", p12(four)), passphrases=(PASSPHRASE,))
    (report,) = diagnosis.chains
    assert len(report.chain.path) == 4
    assert report.keys == ("store.p12#key1",)
    assert not {finding.rule for finding in diagnosis.files[0].findings} & {"leaf-not-first", "e_chain_order"}


@pytest.mark.parametrize("passphrases", [(), (b"wrong",)], ids=["none", "wrong"])
def test_pkcs12_without_its_passphrase_says_that_it_is_encrypted(
    four: tuple[Made, ...], passphrases: tuple[bytes, ...]
) -> None:
    diagnosis = diagnose(("store.p12", p12(four)), passphrases=passphrases)
    assert diagnosis.files[0].note.startswith("encrypted")
    assert not diagnosis.chains


def test_encrypted_key_is_matched_with_the_passphrase_and_named_as_encrypted_without(four: tuple[Made, ...]) -> None:
    sealed = private_keys.encrypt_private_key(four[3].key, PASSPHRASE)
    files = (("leaf.pem", pem(four[3])), ("leaf.key", sealed))
    assert key_objects(diagnose(*files, passphrases=(b"no", PASSPHRASE))) == {"leaf.key": ("leaf.pem",)}
    diagnosis = diagnose(*files)
    assert key_objects(diagnosis) == {"leaf.key": ()}
    assert any("encrypted; pass --passphrase-file" in each.says for each in diagnosis.objects)


def test_objects_behind_one_another_in_der_are_all_read(four: tuple[Made, ...]) -> None:
    root, sub1, sub2, leaf = four
    diagnosis = diagnose(("all.der", leaf.der + sub2.der + sub1.der + root.der))
    assert "der-concatenated" in {finding.rule for finding in diagnosis.files[0].findings}
    assert len(diagnosis.chains[0].chain.path) == 4


def test_copies_are_one_certificate_and_say_where_they_lie(four: tuple[Made, ...]) -> None:
    diagnosis = diagnose(("a.pem", pem(four[3])), ("b.pem", pem(four[3])))
    assert len(diagnosis.chains) == 1
    assert [each.copies for each in diagnosis.objects] == [("b.pem",), ("a.pem",)]


def test_one_bad_file_never_stops_the_rest(four: tuple[Made, ...]) -> None:
    cut = pem(four[1])[:200]
    broken = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"
    diagnosis = diagnose(
        ("cut.pem", cut),
        ("broken.pem", broken),
        ("noise.bin", bytes(range(256))),
        ("empty", b""),
        ("leaf.pem", pem(four[3])),
    )
    rules = {finding.rule for finding in diagnosis.findings}
    assert {"text-cut-off", "text-damaged"} <= rules
    assert {name for name, _ in diagnosis.skipped} == {"noise.bin", "empty"}
    assert [report.chain.leaf.name for report in diagnosis.chains] == ["leaf.pem"]


def test_no_part_of_a_key_is_in_the_report(four: tuple[Made, ...]) -> None:
    key = private_keys.serialise_private_key(four[3].key)
    diagnosis = diagnose(("leaf.pem", pem(four[3]) + key))
    assert "e_private_key_in_bundle" in {finding.rule for finding in diagnosis.findings}
    told = json.dumps(jsonable(to_json(diagnosis))) + repr(diagnosis.objects)
    assert isinstance(four[3].key, ec.EllipticCurvePrivateKey)
    secret = four[3].key.private_numbers().private_value.to_bytes(32, "big")
    for text in (secret.hex(), repr(secret)[2:-1], key.decode().splitlines()[1]):
        assert text not in told


def test_limits_refuse_what_would_cost_too_much() -> None:
    heap = Heap(limits=Limits(total_bytes=100))
    with pytest.raises(InputError, match="too large"):
        heap.add(b"x" * 101, "big")
    root = make("Root CA")
    heap = Heap(limits=Limits(objects=3))
    with pytest.raises(InputError, match="more than 3 objects"):
        heap.add(pem(root) * 4, "many.pem")


def test_only_so_many_containers_are_opened(four: tuple[Made, ...]) -> None:
    heap = Heap(lambda: (PASSPHRASE,), limits=Limits(sealed=1))
    sealed = p12(four)
    heap.add(sealed, "one.p12")
    heap.add(sealed, "two.p12")
    assert [bool(file.inputs) for file in heap.files] == [True, False]
    assert heap.files[1].note == "not opened: more than 1 such files"


def test_crowds_of_namesakes_cost_a_bounded_number_of_signatures() -> None:
    root = make("Root CA")
    crowd = [make("Root CA", nth=nth % 3 + 1, serial=nth + 1) for nth in range(40)]
    leaves = [make("Leaf", root, nth=5, serial=nth + 1) for nth in range(40)]
    diagnosis = diagnose(("crowd.pem", pem(*crowd, root)), ("leaves.pem", pem(*leaves)))
    assert all(len(report.chain.path) == 2 for report in diagnosis.chains if not report.chain.leaf.view.is_ca)


def test_mutants_of_every_container_are_diagnosed_without_a_bug(four: tuple[Made, ...]) -> None:
    root, sub1, sub2, leaf = four
    sealed = private_keys.encrypt_private_key(leaf.key, PASSPHRASE)
    seeds = [pem(leaf, sub2), p12(four), leaf.der + sub2.der, sealed, pem(sub1, root).replace(b"\n", b"\\n")]
    draw = random.Random(20260301)
    for number in range(75):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data))
            data[at : at + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        heap = Heap(lambda: (PASSPHRASE,))
        heap.add(bytes(data), "mutant")
        json.dumps(jsonable(to_json(examine(heap, at=AT))))


def test_leaf_to_write_is_chosen_by_name_file_cn_serial_or_fingerprint(four: tuple[Made, ...]) -> None:
    other = make("Other", four[2], nth=6)
    diagnosis = diagnose(("a.pem", pem(four[3], *four[:3])), ("b.pem", pem(other)))
    with pytest.raises(StateError, match="2 leaves"):
        choose_chain(diagnosis, None)
    with pytest.raises(NotFound):
        choose_chain(diagnosis, "nobody")
    serial = f"{other.certificate.serial_number:x}"
    for wanted in ("b.pem", "Other", serial, choose_chain(diagnosis, "Other").chain.leaf.sha256):
        assert choose_chain(diagnosis, wanted).chain.leaf.der == other.der
    assert choose_chain(diagnosis, "a.pem").chain.leaf.der == four[3].der


def java_text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def sealed_object(*, flags: int = 2, fields: bytes = b"", values: bytes = b"") -> bytes:
    """Return a serialised object as JCEKS holds secret keys: two classes, arrays, texts, references, a number."""
    above = b"\x72" + java_text("javax.crypto.SealedObject") + bytes(8) + bytes([flags]) + b"\0\3"
    above += b"[" + java_text("encodedParams") + b"\x74" + java_text("[B")
    above += b"L" + java_text("sealAlg") + b"\x74" + java_text("Ljava/lang/String;")
    above += b"J" + java_text("number") + fields + b"\x77\3abc\x78" + b"\x70"
    name = b"\x72" + java_text("SealedObjectForKeyProtector") + bytes(8) + b"\2\0\0\x78"
    array = b"\x75\x72" + java_text("[B") + bytes(8) + b"\2\0\0\x78\x70" + b"\0\0\0\4" + b"\xce\xce\xce\xce"
    # The object's own handles come between those of its classes and those of its values.
    return b"\xac\xed\0\5\x73" + name + above + array + b"\x71\0\x7e\0\2" + bytes(8) + values


def jceks(*certificates: bytes, secret: bytes) -> bytes:
    """Return a key store with a secret key in front of trusted certificates."""
    entries = b"\0\0\0\3" + java_text("secret") + bytes(8) + secret
    for der in certificates:
        entries += b"\0\0\0\2" + java_text("a") + bytes(8) + java_text("X.509") + len(der).to_bytes(4, "big") + der
    return b"\xce\xce\xce\xce\0\0\0\2" + (len(certificates) + 1).to_bytes(4, "big") + entries + bytes(20)


def test_certificates_behind_a_secret_key_of_jceks_are_read(four: tuple[Made, ...]) -> None:
    store = jceks(four[3].der, four[2].der, secret=sealed_object())
    more = jceks(four[1].der, four[0].der, secret=sealed_object(flags=3, values=b"\x77\2no\x78"))
    diagnosis = diagnose(("a.jceks", store), ("b.jceks", more))
    assert len(diagnosis.chains[0].chain.path) == 4 and not diagnosis.skipped


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (b"\xac\xed\0\5" + b"\x75" * 5000, "a Java class of kind"),
        (b"\xac\xed\0\5\x73\x71\0\x7e\0\x63", "to no class"),
        (b"\xac\xed\0\5\x73\x71\0\x7d\0\0", "to no class"),
        (b"\xac\xed\0\5" + (b"\x73\x72\0\1a" + bytes(8) + b"\2\0\1[\0\1b") * 200, "too many parts"),
        (b"\xac\xed\0\5\x75\x72\0\2[B" + bytes(8) + b"\2\0\0\x78\x70\xff\xff\xff\xff", "cut off"),
        (
            b"\xac\xed\0\5\x75\x72\0\2[L" + bytes(8) + b"\2\0\0\x78\x70\xff\xff\xff\xff" + b"\x70" * 5000,
            "too many parts",
        ),
        (sealed_object(flags=0x0C), "writes itself"),
        (b"no object", "no Java object"),
    ],
    ids=["arrays", "no class", "before all", "deep", "long", "many", "writes itself", "nothing"],
)
def test_hostile_java_objects_are_given_up(four: tuple[Made, ...], secret: bytes, reason: str) -> None:
    diagnosis = diagnose(("a.jceks", jceks(four[3].der, secret=secret)), ("leaf.pem", pem(four[3])))
    ((name, told),) = diagnosis.skipped
    assert name == "a.jceks" and reason in told
    assert len(diagnosis.chains) == 1


@pytest.mark.parametrize("data", [b"\xce\xce\xce\xce" + bytes(20), b"\xfe\xed\xfe\xed" + bytes(6) + b"\xff\xff"])
def test_key_stores_that_are_not_read_are_told_of(data: bytes) -> None:
    heap = Heap()
    heap.add(data, "store.jks")
    ((name, reason),) = heap.skipped
    assert name == "store.jks"
    assert ":" in reason
