"""PEM as the field sends it is read; PEM as we write it is strict (ocpp-security 12 no. 14)."""

from __future__ import annotations

import base64
import time

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.pki import keys
from chargepki.pki.der import PemBlock, decode_der_or_pem, integer, octet_string, pem_blocks, sequence, to_pem
from chargepki.pki.errors import InputError
from testkit.effort import examples

OBJECT = sequence(integer(1), octet_string(bytes(range(100))))
PEM = to_pem("CERTIFICATE REQUEST", OBJECT)
LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


def read(data: bytes | str) -> bytes:
    return decode_der_or_pem(data.encode() if isinstance(data, str) else data, LABELS, "certificate request", 65536)


@settings(max_examples=examples(100))
@given(st.binary(min_size=1, max_size=500), st.from_regex(r"[A-Z0-9]{1,10}( [A-Z0-9]{1,10}){0,2}", fullmatch=True))
def test_every_block_survives_writing_and_reading(data: bytes, label: str) -> None:
    text = to_pem(label, data)
    assert pem_blocks(text.encode(), max_bytes=10_000) == [PemBlock(label, data)]
    assert text.endswith("-----\n")
    assert max(map(len, text.split("\n")[1:-2])) <= 64
    assert "\r" not in text


@settings(max_examples=examples(200))
@given(st.binary(max_size=200), st.integers(0, len(PEM)), st.integers(0, 20))
def test_no_damage_raises_anything_but_an_input_error(noise: bytes, position: int, cut: int) -> None:
    raw = PEM.encode()
    for data in (noise, raw[:position] + noise + raw[position + cut :]):
        for attempt in (lambda data=data: pem_blocks(data, max_bytes=10_000), lambda data=data: read(data)):
            try:
                attempt()
            except InputError as error:
                assert error.what


def test_our_pem_is_what_another_library_writes() -> None:
    key = keys.generate_private_key(keys.KeyAlgorithm.SECP256R1)
    text = to_pem("PUBLIC KEY", keys.spki_der(key))
    assert keys.spki_der(load_pem_public_key(text.encode())) == keys.spki_der(key)  # type: ignore[arg-type]  # an EC key


NOISY = {
    "CRLF": PEM.replace("\n", "\r\n"),
    "CR": PEM.replace("\n", "\r"),
    "no final newline": PEM.rstrip("\n"),
    "byte order mark": "\ufeff" + PEM,
    "explanatory text": f"subject: CN=Größe\nissuer: CN=Root\n{PEM}trailing words\n",
    "openssl text dump": f"Certificate Request:\n    Data:\n        Version: 1 (0x0)\n{PEM}",
    "literal backslash n": PEM.replace("\n", "\\n"),
    "literal backslash r n": PEM.replace("\n", "\\r\\n"),
    "indented": "\n".join("    " + line for line in PEM.splitlines()),
    "trailing blanks": PEM.replace("\n", "  \n"),
    "one long line": to_pem("CERTIFICATE REQUEST", OBJECT).replace("\n", "", 2).replace("-----M", "-----\nM"),
    "blank lines": PEM.replace("\n", "\n\n"),
    "other label of old software": PEM.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
    "base64 of PEM": base64.b64encode(PEM.encode()).decode(),
    "base64 of PEM in lines": base64.encodebytes(PEM.encode()).decode(),
    "base64 of PEM with CRLF": base64.b64encode(PEM.replace("\n", "\r\n").encode()).decode(),
    "bare base64": base64.b64encode(OBJECT).decode(),
    "bare base64 in lines": base64.encodebytes(OBJECT).decode(),
    "another kind beside it": to_pem("EC PARAMETERS", b"\x06\x00") + PEM,
}


@pytest.mark.parametrize("form", NOISY)
def test_forms_found_in_the_field_are_read(form: str) -> None:
    assert read(NOISY[form]) == OBJECT


def test_der_is_read_as_it_is() -> None:
    assert read(OBJECT) == OBJECT


def test_der_that_contains_a_pem_marker_is_still_der() -> None:
    tricky = sequence(octet_string(PEM.encode()))
    assert read(tricky) == tricky


def test_pem_after_a_text_that_begins_with_zero_is_read() -> None:
    assert read("0 blocks follow\n" + PEM) == OBJECT


REFUSED = {
    "empty": (b"", "empty"),
    "blank": (b" \r\n", "empty"),
    "binary": (bytes(range(256)), "neither PEM nor DER"),
    "text": (b"hello, world!", "neither PEM nor DER"),
    "wrong label": (to_pem("CERTIFICATE", OBJECT).encode(), "found CERTIFICATE"),
    "private key": (to_pem("PRIVATE KEY", OBJECT).encode(), "found PRIVATE KEY"),
    "two of them": ((PEM + PEM).encode(), "2 PEM blocks"),
    "cut off": (PEM[:120].encode(), "no matching END"),
    "end of another": (PEM.replace("END CERTIFICATE REQUEST", "END CERTIFICATE").encode(), "no matching END"),
    "not base64": (PEM.replace("M", "?").encode(), "not base64"),
    "empty block": (b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", "is empty"),
    "too large": (PEM.encode() * 1000, "at most 65536"),
    "truncated DER": (OBJECT[:-1], "truncated"),
    "octets after DER": (OBJECT + b"\n", "trailing-bytes"),
    "octets after DER in PEM": (to_pem("CERTIFICATE REQUEST", OBJECT + b"\0").encode(), "trailing-bytes"),
    "not a SEQUENCE": (to_pem("CERTIFICATE REQUEST", integer(5)).encode(), "not a DER SEQUENCE"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_anything_else_is_refused_with_the_reason(form: str) -> None:
    data, words = REFUSED[form]
    with pytest.raises(InputError, match=words):
        read(data)


def test_labels_cannot_bring_control_characters_into_errors() -> None:
    with pytest.raises(InputError) as caught:
        pem_blocks(b"-----BEGIN \x1b[2JX-----\nAAAA\n", max_bytes=1000)
    assert "\x1b" not in str(caught.value)


def test_encryption_headers_are_told_apart_from_the_body() -> None:
    text = (
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,\n 00AA\n\n"
        "AQID\n-----END EC PRIVATE KEY-----\n"
    )
    (block,) = pem_blocks(text.encode(), max_bytes=1000)
    assert block.headers == (("Proc-Type", "4,ENCRYPTED"), ("DEK-Info", "AES-128-CBC,00AA"))
    assert block.der == b"\x01\x02\x03"


def test_many_begin_lines_take_linear_time() -> None:
    # A search that began anew at each would need hours for this.
    with pytest.raises(InputError):
        pem_blocks(b"-----BEGIN X-----\n" * 50_000, max_bytes=2_000_000)


@pytest.mark.parametrize(
    "hostile",
    [b" " * 500_000 + b"!", b"A" + b"\n" * 500_000 + b"!", b"A" * 500_000 + b"=!=", b"\n" * 500_000 + b"==="],
    ids=["blanks", "line ends", "letters", "padding"],
)
def test_what_is_nearly_base64_takes_linear_time(hostile: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InputError):
        decode_der_or_pem(hostile, ("CERTIFICATE REQUEST",), "certificate request", 1 << 20)
    assert time.process_time() - started < 2  # the square of the length took minutes


def test_a_header_folded_many_times_takes_linear_time() -> None:
    lines = 50_000
    text = b"-----BEGIN X-----\nComment: a\n" + b" bbbbbbbb\n" * lines + b"\nAAAA\n-----END X-----\n"
    started = time.process_time()
    (block,) = pem_blocks(text, max_bytes=len(text))
    assert block.headers == (("Comment", "a" + "bbbbbbbb" * lines),)
    assert time.process_time() - started < 2


def test_padding_may_stand_on_lines_of_its_own() -> None:
    encoded = base64.b64encode(sequence(integer(1), octet_string(b"123")))
    assert encoded.endswith(b"==")
    broken = encoded[:-2] + b"\r\n=\r\n=\r\n"
    assert decode_der_or_pem(broken, ("X",), "x", 100) == sequence(integer(1), octet_string(b"123"))


def test_repr_of_a_block_shows_no_content() -> None:
    assert "secret" not in repr(PemBlock("PRIVATE KEY", b"secret"))
