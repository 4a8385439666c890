"""Tests of chargepki.ocpp_security.frames."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.ocpp_security.errors import RpcErrorCode
from chargepki.ocpp_security.frames import Limits, encode_frame, is_message_id, parse_frame

LIMITS = Limits()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.sampled_from('ab":\\ \u00e9'), max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
frames = st.lists(json_values, max_size=5)


@given(frames, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
@settings(max_examples=300)
def test_every_frame_of_json_is_read_as_the_standard_library_reads_it(
    value: list[object], indent: int | None, ascii_only: bool, separators: tuple[str, str]
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=separators)
    parsed = parse_frame(text, LIMITS)
    assert parsed.problem == ""
    assert parsed.elements == json.loads(text)


pairs = st.lists(
    st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a\\":"', '":"', '"\\"":']), st.sampled_from([":", " :"]),
              st.sampled_from(["1", '"x"', '"\\":"', '":"', '"\\u003a"', '{"a":1}', "[1]"])),
    min_size=1, max_size=5,
)  # fmt: skip


@given(pairs)
@settings(max_examples=500)
def test_duplicate_names_are_found_exactly_when_they_are_there(members: list[tuple[str, str, str]]) -> None:
    text = "[{" + ",".join(f"{name.removesuffix(':')}{colon}{value}" for name, colon, value in members) + "}]"
    names = [json.loads(name.removesuffix(":")) for name, _, _ in members]
    parsed = parse_frame(text, LIMITS)
    assert bool(parsed.problem) == (len(set(names)) != len(names))


@pytest.mark.parametrize(
    "text",
    [
        '[2,"1","A",{"a":1,"a":2}]',
        '[2,"1","A",{"a" :1,"a" :2}]',
        '[2,"1","A",{"a":1,"\\u0061":2}]',
        '[2,"1","A",{"a":{"b":1,"b":1}}]',
        '[2,"1","A",{"a":"\\u0022:","a":"x"}]',
        '[2,"1","A",{"a"\n:":","a":":"}]',
        # One colon is lost with the name, one is won by the escape.
        '[2,"1","A",{"b":"\\u003a","a":1,"a":1}]',
        '[2,"1","A",{"b":"\\u003A","a":1,"a":1}]',
        '[2,"1","A",{"a":' + "[" * 900 + "]" * 900 + ',"a":1}]',
        '[2,"1","A",{"a":' + "9" * 300 + ',"a":1}]',
    ],
)
def test_a_name_that_occurs_twice_is_a_format_violation(text: str) -> None:
    parsed = parse_frame(text, LIMITS)
    assert "twice" in parsed.problem
    assert parsed.code is RpcErrorCode.FORMAT_VIOLATION
    assert parsed.elements is not None


@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "{}", '"a"', "2", "null", "[1,]", "[NaN]", "[Infinity]", "[1e400]", '["\\ud800"]', "[1][2]",
     "\ufeff[1]", "['a']", "[1 /**/]", "[" * 3000 + "]" * 3000, "[\"\ud800\"]", "[01]", "[\"a\nb\"]"],
)  # fmt: skip
def test_what_is_no_json_array_has_no_elements(text: str) -> None:
    parsed = parse_frame(text, LIMITS)
    assert parsed.elements is None
    assert parsed.problem
    assert parsed.code is RpcErrorCode.RPC_FRAMEWORK_ERROR


def test_binary_messages_are_refused_even_when_they_hold_json() -> None:
    assert "binary" in parse_frame(b'[2,"1","Heartbeat",{}]', LIMITS).problem


@pytest.mark.parametrize("unit", ["a", "\u00e9", "\U0001f50c"])
def test_the_size_limit_counts_bytes_and_is_inclusive(unit: str) -> None:
    text = json.dumps([unit * 10], ensure_ascii=False)
    size = len(text.encode())
    assert not parse_frame(text, Limits(max_frame_bytes=size)).problem
    assert "longer" in parse_frame(text, Limits(max_frame_bytes=size - 1)).problem


def test_the_depth_limit_is_inclusive_and_counts_nesting_not_brackets() -> None:
    limits = Limits(max_depth=5)
    assert not parse_frame("[[[[[1]]]]]", limits).problem
    assert "deeper" in parse_frame("[[[[[[1]]]]]]", limits).problem
    assert "deeper" in parse_frame('[{"a":{"a":{"a":{"a":{}}}}}]', limits).problem
    assert not parse_frame("[" + ",".join("[]" for _ in range(100)) + "]", limits).problem


def test_u_0000_is_refused_wherever_it_stands() -> None:
    for text in ('["\\u0000"]', '[{"a\\u0000":1}]', '[[{"a":["x\\u0000y"]}]]'):
        assert "U+0000" in parse_frame(text, LIMITS).problem
    assert not parse_frame('["\\\\u0000"]', LIMITS).problem


@pytest.mark.parametrize("value", ["", "x" * 37, 1, None, ["a"], True])
def test_message_ids_are_strings_of_1_to_36_characters(value: object) -> None:
    assert not is_message_id(value)
    assert is_message_id("x" * 36)
    assert is_message_id("1")


@given(frames)
def test_parsing_what_was_encoded_gives_the_same(value: list[object]) -> None:
    assert parse_frame(encode_frame(value), LIMITS).elements == value


def test_a_depth_limit_that_libraries_cannot_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="max_depth"):
        Limits(max_depth=1000)
