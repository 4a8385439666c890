"""Distinguished names: typed, built, encoded and compared."""

from __future__ import annotations

import string

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, names, oids
from chargepki.pki.errors import InputError
from testkit.effort import examples

VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=16)
ASCII = st.text(string.ascii_letters + string.digits + " -.'", min_size=1, max_size=60)
PAIRS = st.one_of(
    st.tuples(st.sampled_from(["CN", "O", "OU", "L", "ST", "UID"]), VALUES),
    st.tuples(st.sampled_from(["DC", "serialNumber"]), ASCII),
    st.tuples(st.just("C"), st.text(string.ascii_uppercase, min_size=2, max_size=2)),
)


def rdn(oid: str, value: bytes) -> bytes:
    return der.set_of(der.sequence(der.oid(oid), value))


@settings(max_examples=examples(200))
@given(st.lists(PAIRS, min_size=1, max_size=6))
def test_every_name_survives_text_and_encoding(pairs: list[tuple[str, str]]) -> None:
    name = names.build_name(pairs)
    assert names.attributes(name) == pairs
    assert names.parse_rdns(names.text(name)) == name
    encoded = names.name_der(name)
    assert names.name_der(names.name_from_der(encoded)) == encoded
    assert names.attributes(encoded) == pairs
    der.check_strict(encoded)


@settings(max_examples=examples(200))
@given(st.text(max_size=60))
def test_no_text_raises_anything_but_an_input_error(typed: str) -> None:
    try:
        name = names.parse_rdns(typed)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert names.parse_rdns(names.text(name)) == name


@settings(max_examples=examples(200))
@given(st.integers(0, 60), st.integers(0, 255))
def test_no_mutated_name_raises_anything_but_an_input_error(position: int, octet: int) -> None:
    encoded = bytearray(names.name_der(names.parse_rdns("CN=CS-1,O=Example CSO,C=DE,DC=CPO")))
    encoded[position % len(encoded)] = octet
    data = bytes(encoded)
    assert names.text(data)
    for read in (
        names.attributes,
        names.name_from_der,
        lambda raw: names.same(raw, names.name_der(names.parse_rdns("CN=x"))),
    ):
        try:
            read(data)
        except InputError as error:
            assert error.what


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("CN=CS-1,O=Example CSO,C=DE,DC=CPO", [("CN", "CS-1"), ("O", "Example CSO"), ("C", "DE"), ("DC", "CPO")]),
        ("DC=CPO,C=DE,CN=CS-1", [("DC", "CPO"), ("C", "DE"), ("CN", "CS-1")]),
        (" cn = CS-1 , o = Example  CSO ", [("CN", "CS-1"), ("O", "Example  CSO")]),
        (r"CN=a\,b\+c\\d\=e", [("CN", r"a,b+c\d=e")]),
        (r"CN=\ a\ ", [("CN", " a ")]),
        (r"CN=a\  ", [("CN", "a ")]),
        (r"CN=\#1", [("CN", "#1")]),
        (r"CN=Gr\C3\B6\C3\9Fe", [("CN", "Größe")]),
        ('CN="a, b" , O=c', [("CN", "a, b"), ("O", "c")]),
        ("CN=a=b", [("CN", "a=b")]),
        ("CN=a;O=b", [("CN", "a"), ("O", "b")]),
        ("2.5.4.3=a,1.2.3.4=b", [("CN", "a"), ("1.2.3.4", "b")]),
        ("DC=V2G,DC=CPO", [("DC", "V2G"), ("DC", "CPO")]),
        ("serialNumber=0042", [("serialNumber", "0042")]),
    ],
)
def test_names_are_read_as_typed(typed: str, expected: list[tuple[str, str]]) -> None:
    assert names.attributes(names.parse_rdns(typed)) == expected


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "missing"),
        ("CS-1", "no attribute at 'CS-1'"),
        ("CN=a,", "missing"),
        ("CN=a,,O=b", "no attribute|not an attribute"),
        ("=a", "no attribute"),
        ("CN=", "CN is empty"),
        ("CN=  ,O=b", "CN is empty"),
        ("XX=a", "'XX' is not an attribute"),
        ("/CN=a/O=b", "commas"),
        ("CN=a+O=b", r"\+ must be escaped"),
        ("CN=a\\", "backslash"),
        ("CN=a\\z", "backslash"),
        (r"CN=\FF", "not UTF-8"),
        ('CN="a', "closing quote"),
        ('CN="a"b', "after the closing quote"),
        ('CN=a"b"', "must be escaped"),
        ("CN=#0c0161", "#hex"),
        ("CN=a\nb", "control character"),
        (r"CN=a\00b", "control character"),
        ("CN=" + "a" * 65, "at most 64"),
        ("CN=" + "ö" * 33, "66 octets"),
        ("DC=" + "a" * 64, "at most 63"),
        ("C=DEU", "two letters"),
        ("C=D1", "two letters"),
        ("DC=Größe", "IA5String"),
        ("serialNumber=a*b", "PrintableString"),
        ("1.2.99999.=a", "not an attribute"),
        ("1.99=a", "not an object identifier"),
        ("CN=" + "a" * 9000, "at most 8192"),
    ],
)
def test_what_cannot_be_a_name_is_refused_with_the_reason(typed: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        names.parse_rdns(typed)


def test_string_types_follow_the_attribute() -> None:
    name = names.build_name([("C", "DE"), ("DC", "CPO"), ("serialNumber", "1"), ("CN", "a"), ("O", "b")])
    tags = [
        der.parse(value).children()[0].children()[1].tag
        for value in (one.raw for one in der.parse(names.name_der(name)).children())
    ]
    assert tags == [der.PRINTABLE_STRING, der.IA5_STRING, der.PRINTABLE_STRING, der.UTF8_STRING, der.UTF8_STRING]


def test_the_name_vector_of_the_fact_sheet_is_reproduced() -> None:
    name = names.parse_rdns("C=NL,O=Example CPO,CN=Example Root")
    assert names.name_der(name).hex() == (
        "303a310b3009060355040613024e4c31143012060355040a0c0b4578616d706c652043504f"
        "3115301306035504030c0c4578616d706c6520526f6f74"
    )


def test_string_types_and_sets_survive_reading() -> None:
    pair = der.set_of(
        der.sequence(der.oid(oids.COMMON_NAME), der.printable_string("a")),
        der.sequence(der.oid(oids.ORGANIZATION_NAME), der.tlv(der.BMP_STRING, "b".encode("utf-16-be"))),
    )
    encoded = der.sequence(pair, rdn(oids.LOCALITY_NAME, der.ia5_string("c")))
    assert names.name_der(names.name_from_der(encoded)) == encoded
    assert names.text(encoded) == "CN=a+O=b,L=c"


def test_a_name_whose_octets_would_change_is_not_made_an_object() -> None:
    encoded = der.sequence(rdn(oids.LOCALITY_NAME, der.tlv(der.TELETEX_STRING, "ö".encode("latin-1"))))
    assert names.text(encoded) == "L=ö"
    with pytest.raises(InputError, match="octets would change"):
        names.name_from_der(encoded)


def test_get_refuses_to_choose_between_two() -> None:
    name = names.parse_rdns("DC=V2G,DC=CPO,CN=a")
    assert names.get(name, "cn") == "a"
    assert names.get(name, "2.5.4.3") == "a"
    assert names.get(name, "O") is None
    with pytest.raises(InputError, match="DC 2 times"):
        names.get(name, "DC")


def test_text_shows_control_characters_as_escapes() -> None:
    hostile = der.sequence(rdn(oids.COMMON_NAME, der.utf8_string("a\n\x1b[2J\u202eb")))
    assert names.text(hostile).isprintable()
    assert names.text(hostile) == r"CN=a\0A\1B[2J\E2\80\AEb"
    assert names.text(b"junk") == "(unreadable name)"


def test_values_that_are_no_strings_are_shown_in_hex() -> None:
    encoded = der.sequence(rdn("1.2.3", der.integer(5)))
    assert names.attributes(encoded) == [("1.2.3", "#020105")]
    assert names.text(encoded) == "1.2.3=#020105"
    with pytest.raises(InputError):
        names.name_from_der(encoded)


def cn(value: bytes) -> bytes:
    return der.sequence(rdn(oids.COMMON_NAME, value))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (der.utf8_string("Example Root"), der.printable_string("Example Root"), True),
        (der.utf8_string("Example Root"), der.utf8_string("EXAMPLE  root "), True),
        (der.utf8_string("Straße"), der.utf8_string("STRASSE"), True),
        (der.utf8_string("e\u0301"), der.utf8_string("é"), True),
        (der.utf8_string("Example Root"), der.utf8_string("Example Root 2"), False),
        (der.utf8_string("a b"), der.utf8_string("ab"), False),
        (der.utf8_string("Root\x00"), der.utf8_string("Root"), False),
        (der.utf8_string("Ro\u200bot"), der.utf8_string("Root"), False),
        (der.octet_string(b"a"), der.utf8_string("a"), False),
        (der.octet_string(b"a"), der.octet_string(b"A"), False),
        (der.octet_string(b"a"), der.utf8_string("#040161"), False),
    ],
)
def test_names_are_compared_as_rfc_5280_7_1_says(left: bytes, right: bytes, expected: bool) -> None:
    assert names.same(cn(left), cn(right)) is expected
    assert names.same(cn(right), cn(left)) is expected


def test_order_and_number_of_rdns_count_but_order_inside_one_does_not() -> None:
    a = der.sequence(der.oid(oids.COMMON_NAME), der.utf8_string("a"))
    b = der.sequence(der.oid(oids.ORGANIZATION_NAME), der.utf8_string("b"))
    assert not names.same(der.sequence(der.set_of(a), der.set_of(b)), der.sequence(der.set_of(b), der.set_of(a)))
    assert not names.same(der.sequence(der.set_of(a), der.set_of(b)), der.sequence(der.set_of(a, b)))
    assert not names.same(der.sequence(der.set_of(a)), der.sequence(der.set_of(a), der.set_of(b)))
    assert names.same(der.sequence(der.set_of(a, b)), der.sequence(der.tlv(der.SET, b + a)))


def test_names_agree_with_an_independent_encoder() -> None:
    theirs = x509.Name.from_rfc4514_string("CN=CS-1,O=Example CSO,C=DE")
    ours = names.parse_rdns("C=DE,O=Example CSO,CN=CS-1")  # RFC 4514 writes the last RDN first
    assert names.name_der(ours) == theirs.public_bytes()
