"""``chargepki exi``: read and write the EXI of Plug & Charge messages about certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chargepki.cli.globals import GlobalState, group, pass_state

if TYPE_CHECKING:
    from chargepki.pki.exi import Message, MessageSet

__all__ = ["exi"]

# Base64 and hexadecimal, with line breaks, of the longest stream; JSON with room for indentation.
_MAX_FILE_BYTES = 1 << 20

_SETS = ("iso15118-2", "iso15118-20", "xmldsig")

_set_option = click.option(
    "--set", "set_name", type=click.Choice(_SETS), help="Schema of the message; found by trying when it is left out."
)
_limits_option = click.option(
    "--ignore-limits", is_flag=True, help="Let lengths and numbers pass that the schema forbids."
)


@group(
    "exi", example="chargepki exi decode request.exi > request.json\n  chargepki exi encode request.json -o request.exi"
)
def exi() -> None:
    """Turn the EXI of messages about certificates (ISO 15118-2 and -20) into JSON, and back."""


@exi.command(
    "decode", example="chargepki exi decode request.exi\n  jq -r .exiRequest call.json | chargepki exi decode -"
)
@click.argument("file", metavar="FILE|-")
@_set_option
@_limits_option
@pass_state
def decode(state: GlobalState, file: str, set_name: str | None, ignore_limits: bool) -> None:
    """Print the message in FILE as JSON. FILE holds the bytes themselves, or base64 or hexadecimal of them.

    Read are CertificateInstallationReq and -Res and CertificateUpdateReq and -Res of ISO 15118-2,
    CertificateInstallationReq and -Res of -20, and the elements of them that are encoded on their own to be signed.
    Binary values are base64, SessionID is hexadecimal. What is printed is what `exi encode` reads.
    """
    import json

    from chargepki.pki import exi as codec
    from chargepki.pki import files

    data = _exi_bytes(files.read_limited(file, _MAX_FILE_BYTES, "EXI stream"))
    message = codec.decode(data, message_set=_message_set(set_name), limits=not ignore_limits)
    if state.output.for_machines:
        content = {"message_set": message.message_set, "bytes": len(data), "message": codec.to_json(message)}
        state.output.document("chargepki/exi-message", content)
    else:
        state.output.say(f"{_described(message)}, {len(data)} bytes")
        # Escaped, because a stranger's text may hold what steers a terminal.
        state.output.text(json.dumps(codec.to_json(message), indent=2))


@exi.command(
    "encode", example="chargepki exi encode request.json -o request.exi\n  chargepki exi encode - < request.json"
)
@click.argument("file", metavar="FILE|-")
@click.option("--out", "-o", metavar="F", help="Write the bytes to this file (- is stdout); without it, print base64.")
@_set_option
@_limits_option
@pass_state
def encode(state: GlobalState, file: str, out: str | None, set_name: str | None, ignore_limits: bool) -> None:
    """Write the JSON message in FILE as EXI; base64, as OCPP carries it, unless --out is given.

    FILE holds what `exi decode` prints, with or without --json.
    """
    import base64

    from chargepki.cli.results import check_folder, write_result
    from chargepki.pki import exi as codec
    from chargepki.pki import files

    check_folder("--out", out)
    document, named = _unwrapped(_parsed(files.read_limited(file, _MAX_FILE_BYTES, "JSON message")))
    message = codec.from_json(document, message_set=_message_set(set_name or named))
    data = codec.encode(message, limits=not ignore_limits)
    if out:
        write_result(state, data, out)
    text = base64.b64encode(data).decode("ascii")
    if state.output.for_machines and out != "-":
        content = {"message_set": message.message_set, "bytes": len(data), "exi": text, "file": out}
        state.output.document("chargepki/exi-stream", content)
    elif not out:
        state.output.text(text)
    state.output.say(f"{_described(message)}, {len(data)} bytes")


def _message_set(name: str | None) -> MessageSet | None:
    from chargepki.pki.exi import MessageSet

    return MessageSet(name) if name else None


def _described(message: Message) -> str:
    body = message.tree.get("Body")
    inner = next(iter(body), "") if isinstance(body, dict) else ""
    return f"{inner or message.name} of {message.message_set}"


def _exi_bytes(content: bytes) -> bytes:
    """Return the stream itself; a stream starts with the byte 0x80, which no text starts with."""
    import base64
    import binascii

    from chargepki.pki.exi import ExiError

    if not content or content[0] >= 0x80:
        return content
    text = b"".join(content.split())
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ExiError(
            "this is neither EXI nor base64 or hexadecimal of it", fix="an EXI stream starts with the byte 0x80"
        ) from None


def _parsed(content: bytes) -> object:
    import json

    from chargepki.pki.exi import ExiError

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ExiError("a JSON object names a field twice")
        return found

    try:
        return json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as exc:
        place = f"line {exc.lineno} column {exc.colno}: {exc.msg}" if isinstance(exc, json.JSONDecodeError) else ""
        raise ExiError("this is no JSON" + (f": {place}" if place else ""), fix="give what exi decode printed") from exc


def _unwrapped(document: object) -> tuple[object, str | None]:
    """Return the message, and its set when the document of ``exi decode --json`` names it."""
    from chargepki.pki.exi import ExiError

    if not isinstance(document, dict) or document.get("schema") != "chargepki/exi-message":
        return document, None
    named = document.get("message_set")
    if named not in _SETS:
        raise ExiError("message_set of the document is no message set", fix=f"known are: {', '.join(_SETS)}")
    return document.get("message"), named
