"""Strict DER: what we write we read, what others write wrongly we refuse by rule and offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import der, keys
from chargepki.pki.errors import InputError
from testkit.effort import examples

FIRST = datetime(1950, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
MOMENTS = st.integers(0, int((LAST - FIRST).total_seconds())).map(lambda seconds: FIRST + timedelta(seconds=seconds))
OIDS = st.builds(
    lambda first, second, rest: ".".join(map(str, (first, second, *rest))),
    st.integers(0, 2),
    st.integers(0, 39),
    st.lists(st.integers(0, 2**64), max_size=8),
)
ELEMENTS = st.recursive(
    st.one_of(
        st.integers().map(der.integer),
        st.booleans().map(der.boolean),
        st.just(der.null()),
        st.binary(max_size=300).map(der.octet_string),
        st.sets(st.integers(0, 40)).map(der.named_bits),
        OIDS.map(der.oid),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(der.utf8_string),
        MOMENTS.map(der.time),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: der.sequence(*parts)),
        st.lists(inner, max_size=4).map(lambda parts: der.set_of(*parts)),
        st.tuples(st.integers(0, 30), inner).map(lambda pair: der.explicit(*pair)),
    ),
    max_leaves=12,
)


@settings(max_examples=examples(200))
@given(st.integers())
def test_every_integer_survives_and_agrees_with_an_independent_encoder(value: int) -> None:
    encoded = der.integer(value)
    assert der.parse(encoded).as_integer() == value
    assert encoded == core.Integer(value).dump()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, -1, -127, -128, -129, -256, 2**159 - 1, -(2**63)])
def test_integers_at_octet_borders_are_minimal(value: int) -> None:
    assert der.integer(value) == core.Integer(value).dump()
    assert der.parse(der.integer(value)).as_integer() == value


@settings(max_examples=examples(100))
@given(OIDS)
def test_every_object_identifier_survives_and_agrees_with_an_independent_encoder(dotted: str) -> None:
    if len(der.oid(dotted)) > 100:
        return
    assert der.parse(der.oid(dotted)).as_oid() == dotted
    assert der.oid(dotted) == core.ObjectIdentifier(dotted).dump()


@settings(max_examples=examples(100))
@given(st.sets(st.integers(0, 100)))
def test_every_set_of_named_bits_survives_without_trailing_zeros(bits: set[int]) -> None:
    element = der.parse(der.named_bits(bits))
    assert element.as_bits() == bits
    unused, value = element.as_bit_string()
    assert not value or value[-1] & (1 << unused)


@settings(max_examples=examples(100))
@given(MOMENTS)
def test_every_time_survives_in_the_form_of_its_year(moment: datetime) -> None:
    element = der.parse(der.time(moment))
    assert element.as_time() == moment
    assert element.tag == (der.UTC_TIME if moment.year < 2050 else der.GENERALIZED_TIME)
    assert der.parse(der.generalized_time(moment)).as_time() == moment


def test_time_turns_utc_time_into_generalized_time_at_2050() -> None:
    last = datetime(2049, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert der.time(last) == b"\x17\x0d491231235959Z"
    assert der.time(last + timedelta(seconds=1)) == b"\x18\x0f20500101000000Z"
    # The year that counts is the one in UTC.
    assert der.time(datetime(2050, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == b"\x17\x0d491231230000Z"


def test_naive_times_are_type_errors_and_times_before_1950_are_refused() -> None:
    naive = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    with pytest.raises(TypeError):
        der.time(naive)
    with pytest.raises(TypeError):
        der.generalized_time(naive)
    with pytest.raises(InputError, match="1949"):
        der.time(datetime(1949, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65535, 65536, 70000])
def test_lengths_at_octet_borders_are_minimal(length: int) -> None:
    encoded = der.octet_string(bytes(length))
    assert encoded == core.OctetString(bytes(length)).dump()
    assert der.parse(encoded).as_octets() == bytes(length)


@settings(max_examples=examples(150))
@given(ELEMENTS)
def test_everything_we_write_is_strict_der(encoded: bytes) -> None:
    der.check_strict(encoded)
    element = der.parse(encoded)
    assert element.raw == encoded
    if element.constructed:
        assert b"".join(child.raw for child in element.children()) == element.content


@settings(max_examples=examples(300))
@given(ELEMENTS, st.data())
def test_no_mutation_raises_anything_but_a_der_error(encoded: bytes, data: st.DataObject) -> None:
    mutated = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(mutated)))
        action = data.draw(st.sampled_from(["set", "insert", "cut"]))
        if action == "insert":
            mutated.insert(position, data.draw(st.integers(0, 255)))
        elif position < len(mutated):
            if action == "set":
                mutated[position] = data.draw(st.integers(0, 255))
            else:
                del mutated[position]
    _read_everything(bytes(mutated))


@settings(max_examples=examples(200))
@given(st.binary(max_size=60))
def test_no_octets_at_all_raise_anything_but_a_der_error(data: bytes) -> None:
    _read_everything(data)


def _read_everything(data: bytes) -> None:
    try:
        der.check_strict(data)
        pending = [der.parse(data)]
    except der.DerError as error:
        assert error.rule
        assert 0 <= error.offset <= len(data)
        return
    while pending:
        element = pending.pop()
        if element.constructed:
            pending.extend(element.children())
            continue
        for read in (
            element.as_integer, element.as_boolean, element.as_null, element.as_oid, element.as_octets,
            element.as_bit_string, element.as_bits, element.as_text, element.as_time,
        ):  # fmt: skip
            try:
                read()
            except der.DerError as error:
                assert error.rule


@pytest.mark.parametrize(
    ("hexadecimal", "rule", "offset"),
    [
        ("", "truncated", 0),
        ("30", "truncated", 0),
        ("3003020100ff", "trailing-bytes", 5),
        ("308003020100", "indefinite-length", 0),
        ("30810302010f", "non-minimal-length", 0),
        ("3082000302010f", "non-minimal-length", 0),
        ("30850000000001", "non-minimal-length", 0),
        ("308900000000000000000000", "too-large", 0),
        ("30830100", "truncated", 0),
        ("3004020100", "truncated", 0),
        ("3003020500", "truncated", 2),
        ("1f810100", "high-tag-number", 0),
        ("30030201", "truncated", 0),
        ("30020200", "empty-integer", 2),
        ("300402020001", "non-minimal-integer", 2),
        ("30040202ff80", "non-minimal-integer", 2),
        ("3003010101", "bad-boolean", 2),
        ("30020100", "bad-boolean", 2),
        ("3003050100", "bad-null", 2),
        ("30020600", "bad-oid", 2),
        ("300406028001", "bad-oid", 2),
        ("3003060181", "bad-oid", 2),
        ("30020300", "bad-bit-string", 2),
        ("3003030101", "bad-bit-string", 2),
        ("300403020801", "bad-bit-string", 2),
        ("300403020101", "bad-bit-string", 2),
        ("3005240304010a", "constructed-string", 2),
        ("3002100100", "trailing-bytes", 4),
        ("30021000", "not-constructed", 2),
        ("3003130140", "bad-string", 2),
        ("30030c01ff", "bad-string", 2),
        ("3003160180", "bad-string", 2),
        ("30030a0100", "", 0),
    ],
)
def test_each_violation_is_refused_by_its_rule_at_its_offset(hexadecimal: str, rule: str, offset: int) -> None:
    data = bytes.fromhex(hexadecimal)
    if not rule:
        der.check_strict(data)
        return
    with pytest.raises(der.DerError) as caught:
        der.check_strict(data)
    assert (caught.value.rule, caught.value.offset) == (rule, offset)


@pytest.mark.parametrize(
    "text",
    [
        "2601010000Z",
        "260101000000",
        "260101000000+0100",
        "26010100000aZ",
        "261301000000Z",
        "260230000000Z",
        "260101240000Z",
    ],
)
def test_utc_times_outside_rfc_5280_are_refused(text: str) -> None:
    with pytest.raises(der.DerError) as caught:
        der.parse(der.tlv(der.UTC_TIME, text.encode())).as_time()
    assert caught.value.rule == "bad-time"


@pytest.mark.parametrize(
    "text", ["20260101000000.5Z", "20260101000000", "202601010000Z", "00000101000000Z", "20261301000000Z"]
)
def test_generalized_times_outside_rfc_5280_are_refused(text: str) -> None:
    with pytest.raises(der.DerError) as caught:
        der.parse(der.tlv(der.GENERALIZED_TIME, text.encode())).as_time()
    assert caught.value.rule == "bad-time"


def test_the_end_of_time_of_rfc_5280_is_read() -> None:
    assert der.parse(b"\x18\x0f99991231235959Z").as_time() == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert der.parse(b"\x17\x0d500101000000Z").as_time().year == 1950


def test_deep_nesting_is_refused_without_recursion() -> None:
    data = b"\x05\x00"
    for _ in range(5000):
        data = der.sequence(data)
    with pytest.raises(der.DerError) as caught:
        der.check_strict(data)
    assert caught.value.rule == "too-deep"


def test_size_limit_is_a_rule() -> None:
    with pytest.raises(der.DerError) as caught:
        der.parse(der.octet_string(bytes(100)), max_bytes=50)
    assert caught.value.rule == "too-large"


def test_huge_object_identifiers_are_refused() -> None:
    with pytest.raises(der.DerError) as caught:
        der.parse(der.tlv(6, b"\x81" * 5000 + b"\x01")).as_oid()
    assert caught.value.rule == "too-large"


@pytest.mark.parametrize(
    "dotted", ["", "1", "3.1", "1.40", "1.2.", "1..2", "1.02", "1.2.x", "1.2.-3", "1.2.³", "9" * 300]
)
def test_texts_that_are_no_object_identifier_are_refused(dotted: str) -> None:
    with pytest.raises(InputError):
        der.oid(dotted)


def test_set_of_is_sorted_by_encoding() -> None:
    assert der.set_of(der.integer(3), der.integer(1)) == der.set_of(der.integer(1), der.integer(3))
    assert der.set_of(der.integer(300), der.integer(1)).hex() == "3107" + "020101" + "0202012c"


def test_string_writers_refuse_foreign_characters() -> None:
    assert der.parse(der.printable_string("a-b 'c'")).as_text() == "a-b 'c'"
    with pytest.raises(InputError):
        der.printable_string("a*b")
    with pytest.raises(InputError):
        der.printable_string("a\n")
    with pytest.raises(InputError):
        der.ia5_string("é")
    with pytest.raises(InputError):
        der.utf8_string("\ud800")


def test_bit_string_writer_refuses_bits_that_do_not_count() -> None:
    assert der.bit_string(b"\x80", 7).hex() == "03020780"
    for value, unused in ((b"\x01", 1), (b"", 1), (b"\x00", 8)):
        with pytest.raises(ValueError, match="unused bits"):
            der.bit_string(value, unused)


def test_context_tags_carry_number_and_form() -> None:
    assert der.explicit(3, der.null()).hex() == "a3020500"
    assert der.implicit(6, b"x", constructed=False).hex() == "860178"
    assert der.implicit(0, der.null(), constructed=True).hex() == "a0020500"
    element = der.parse(der.explicit(3, der.integer(5)))
    assert element.is_context(3)
    assert not element.is_context(2)
    assert element.child().as_integer() == 5
    assert der.parse(der.implicit(1, b"\x05", constructed=False)).as_integer(0x81) == 5
    assert der.parse(der.implicit(6, b"http://x", constructed=False)).as_text(0x86) == "http://x"


def test_elements_are_slices_of_the_original_octets() -> None:
    outer = der.parse(der.sequence(der.integer(1), der.octet_string(b"abc")))
    first, second = outer.children(der.SEQUENCE)
    assert second.raw == der.octet_string(b"abc")
    assert outer.data[second.offset : second.end] == second.raw
    assert (first.offset, second.content) == (2, b"abc")
    with pytest.raises(der.DerError, match="expected 0x31"):
        outer.children(der.SET)
    with pytest.raises(der.DerError):
        first.children()
    with pytest.raises(der.DerError):
        outer.child()


def test_parse_at_an_offset_reads_one_element() -> None:
    data = der.integer(7) + der.integer(8)
    assert der.parse(data, offset=3).as_integer() == 8
    assert der.parse(data, strict_end=False).end == 3


def test_repr_of_an_element_shows_no_content() -> None:
    assert "secret" not in repr(der.parse(der.octet_string(b"secret")))


def test_enumerated_has_its_own_tag() -> None:
    assert der.enumerated(4).hex() == "0a0104"
    assert der.parse(der.enumerated(4)).as_integer(der.ENUMERATED) == 4


def test_real_spki_of_another_encoder_is_strict_der() -> None:
    der.check_strict(keys.spki_der(ec.generate_private_key(ec.SECP256R1())))
