"""The images of ``firmware sign`` and ``firmware verify``: read what the options name, run the core, report."""

from __future__ import annotations

import base64
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from chargepki.cli.globals import GlobalState
from chargepki.cli.verifying import read_certificates, read_objects
from chargepki.ocpp_security.firmware import VerifiedFirmware, sign_firmware, verify_firmware
from chargepki.ocpp_security.firmware_certificate import FirmwareTrust, revocation_of, verify_signing_certificate
from chargepki.ocpp_security.firmware_verdict import FirmwareHash, FirmwareQuirk, FirmwareRefusal
from chargepki.pki import files, private_keys
from chargepki.pki.chain.certificate import PathCertificate
from chargepki.pki.der import to_pem
from chargepki.pki.errors import InputError, PolicyRefusal, UnavailableError

if TYPE_CHECKING:
    from chargepki.ocpp_security.firmware_image import BegunDigest
    from chargepki.pki.signer import Signer

__all__ = [
    "open_image",
    "open_signer",
    "read_pem",
    "read_roots",
    "read_signature",
    "sign_image",
    "tell_deviations",
    "verify_image",
]

_MAX_SIGNATURE_BYTES = 8192
_MAX_CRL_BYTES = 64 << 20
_MAX_OCSP_BYTES = 256 << 10
_MAX_PEM_BYTES = 1 << 20
_URI = re.compile(r"(file|pkcs11):", re.ASCII)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]*\Z")


def sign_image(state: GlobalState, options: Mapping[str, Any], begun: BegunDigest | None) -> None:
    """Carry out ``firmware sign``.

    Args:
        begun: the digest to come of a plain file; ``None`` for another image, which is read when its turn comes.
    """
    from chargepki.cli.results import check_folder, write_result

    check_folder("--out", options["out"])
    if options["image"] == "-" == state.settings.passphrase_file:
        raise click.UsageError("standard input cannot be both the image and the passphrase")
    at = datetime.now(UTC)
    certificates = read_certificates(options["cert"])
    if options["trust"]:
        trust = FirmwareTrust(tuple(der for file in options["trust"] for der in read_certificates(file)))
        try:
            verify_signing_certificate(certificates, trust, at)
        except FirmwareRefusal as refusal:
            raise PolicyRefusal(
                f"stations would refuse this certificate: {refusal.what}", why=refusal.why, fix=refusal.fix
            ) from refusal
    signer = open_signer(state, options["key"])
    quirks = tuple(map(FirmwareQuirk, options["quirks"]))
    with open_image(state, options["image"], "signing") as (image, tick):
        made = sign_firmware(
            begun or image,
            signer,
            certificates[0],
            at=at,
            hash_name=FirmwareHash(options["hash_name"]),
            quirks=quirks,
            tick=tick,
        )
    leaf = PathCertificate(certificates[0])
    tell_deviations(state, made.deviations)
    if options["dry_run"]:
        state.output.say("dry run: nothing is written")
    elif options["out"]:
        data = made.raw if options["raw"] else f"{made.text}\n".encode("ascii")
        write_result(state, data, options["out"])
    report = {
        "image": options["image"],
        "size": made.image.size,
        "hash": made.image.hash,
        "digest": made.image.hex,
        "scheme": made.scheme,
        "signature": made.text,
        "certificate": leaf.label,
        "certificate_sha256": leaf.sha256,
        "not_after": leaf.not_after,
        "deviations": list(made.deviations),
    }
    if state.output.for_machines:
        state.output.document("chargepki/firmware-signature", report)
    elif options["out"] or options["dry_run"]:
        state.output.fields("chargepki/firmware-signature", report)
    else:
        write_result(state, made.raw if options["raw"] else f"{made.text}\n".encode("ascii"), None)


def verify_image(
    state: GlobalState, options: Mapping[str, Any], begun: BegunDigest | None, *, at: datetime | None
) -> None:
    """Carry out ``firmware verify``; exit 1 when a station must refuse the image.

    Args:
        begun: as in `sign_image`; nothing is concluded from it before the certificate is judged.

    Raises:
        click.exceptions.Exit: the answer is no.
    """
    version, installed = options["version"], options["installed"]
    if (version is None) != (installed is None):
        raise click.UsageError("--version and --installed are compared with each other: give both, or neither")
    crls = [der for file in options["crls"] for der in read_objects(file, "CRL", ("X509 CRL",), _MAX_CRL_BYTES)]
    responses = [
        der
        for file in options["ocsp_responses"]
        for der in read_objects(file, "OCSP response", ("OCSP RESPONSE",), _MAX_OCSP_BYTES)
    ]
    trust = FirmwareTrust(read_roots(state, options["trust"]), revocation_of(crls, responses))
    signature, certificate = read_signature(options["signature"]), read_pem(options["cert"])
    try:
        with open_image(state, options["image"], "verifying") as (image, tick):
            verified = verify_firmware(
                begun or image,
                signature=signature,
                certificate_pem=certificate,
                trust=trust,
                at=at or datetime.now(UTC),
                hash_name=FirmwareHash(options["hash_name"]),
                quirks=tuple(map(FirmwareQuirk, options["quirks"])),
                tick=tick,
            )
        if installed is not None:
            # Here, since every module that is loaded before the image is read costs throughput.
            from chargepki.ocpp_security.firmware_version import check_no_rollback

            check_no_rollback(version, installed)
    except FirmwareRefusal as refusal:
        if state.output.for_machines:
            state.output.document(
                "chargepki/firmware-verdict", {"image": options["image"], "valid": False, "refusal": refusal.to_json()}
            )
        else:
            answer = f"a station answers {refusal.status}" + (f" and reports {refusal.event}" if refusal.event else "")
            state.report(what=refusal.what, why=f"{refusal.why}; {answer}", fix=refusal.fix, code=refusal.code)
        raise click.exceptions.Exit(1) from refusal
    _print(state, options["image"], verified)


def _print(state: GlobalState, image: str, verified: VerifiedFirmware) -> None:
    if state.output.for_machines:
        state.output.document("chargepki/firmware-verdict", {"image": image, **verified.to_json()})
        return
    state.output.text(f"valid: {verified.certificate.label} signed these {verified.image.size} bytes")
    state.output.text(f"  {verified.image.hash}  {verified.image.hex}")
    state.output.text(f"  {verified.scheme}, under {verified.certificate.root}")
    tell_deviations(state, verified.deviations)
    for notice in verified.notices:
        state.output.say(f"notice: {notice}; give --crl or --ocsp-response to have it judged")


def tell_deviations(state: GlobalState, deviations: tuple[str, ...]) -> None:
    """Warn of each way in which the standard is not kept, even with --quiet."""
    for text in deviations:
        state.say_line(f"warning: {text}")


# ---------------------------------------------------------------- inputs


@contextmanager
def open_image(state: GlobalState, image: str, title: str) -> Iterator[tuple[Path | BinaryIO, Callable[[int], None]]]:
    """Yield the image as the core takes it, and what shows the progress (a bar, on a terminal)."""
    from chargepki.cli.progress import progress

    source: Path | BinaryIO = sys.stdin.buffer if image == "-" else Path(image)
    total = _size(image)
    with progress(state, f"{title} {'standard input' if image == '-' else Path(image).name}") as advance:
        yield source, lambda done: advance(done, max(total, done))


def _size(image: str) -> int:
    if image == "-":
        return 0
    try:
        status = os.stat(image)  # noqa: PTH116 - a name as it was typed
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise UnavailableError(f"cannot read the image {image}", why=reason or type(exc).__name__) from exc
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{image} is a folder", why="an image is one file", fix="name the file")
    if stat.S_ISCHR(status.st_mode):
        # /dev/zero has no end; what comes from a terminal or a pipe is "-".
        raise InputError(f"{image} is a device", why="nothing says where its image would end", fix="name a file, or -")
    return status.st_size


def open_signer(state: GlobalState, key: str) -> Signer:
    """Return the signer that ``--key`` names: a file of its own, or a URI of a key store of the workspace.

    Raises:
        SignerError: absent, locked, readable by others, or a kind of key store that this release does not have.
    """
    if _URI.match(key):
        return state.workspace.keystore.open(key)
    from chargepki.pki.signer import Signer

    data = files.read_private(key)
    if b"ENCRYPTED" in data:
        from chargepki.cli.passphrase import passphrase_source

        passphrase = passphrase_source(state.settings.passphrase_file, warn=state.output.say)
        return Signer.of(key, private_keys.decrypt_private_key(data, passphrase()))
    return Signer.of(key, private_keys.load_private_key(data))


def read_roots(state: GlobalState, trust: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the manufacturer roots (DER) that ``--trust`` names, or else those of the workspace.

    Raises:
        click.UsageError: there is neither.
    """
    if trust:
        return tuple(der for file in trust for der in read_certificates(file))
    found: tuple[bytes, ...] = ()
    if state.workspace.exists:
        from chargepki.pki.inventory.records import CaState

        found = tuple(
            record.certificate_der
            for record in state.workspace.inventory.list_cas()
            if record.profile == "ocpp/manufacturer-root"
            and record.certificate_der is not None
            and record.state is not CaState.REVOKED
        )
    if not found:
        raise click.UsageError("--trust is missing: the workspace has no manufacturer root of its own")
    return found


def read_pem(file: str) -> str:
    """Return the certificate file as it would stand in a message: PEM as it is, DER as PEM."""
    data = files.read_limited(file, _MAX_PEM_BYTES, "certificate file")
    if not data.strip():
        return ""
    if b"-----BEGIN" in data:
        return data.decode("utf-8", "replace")
    return to_pem("CERTIFICATE", data)


def read_signature(text: str) -> str:
    """Return the base64 of ``--signature``: the text itself, or the content of a file, base64 or raw.

    Line breaks in a file are taken out: editors and openssl put them there, and the message has none.
    """
    # A pipe counts as a file: shells hand one in for <(openssl dgst -sign …), by a name that base64 could have, too.
    file = Path(text[:255])
    try:
        is_there = file.is_file() or file.is_fifo()
    except OSError:
        is_there = False
    if not is_there:
        if file.is_dir():
            raise InputError(f"{text} is a folder", why="a signature is read from a file", fix="name the file")
        if "/" in text and not _BASE64.match(text.encode("utf-8", "replace")):
            raise UnavailableError(f"there is no signature file {text}")
        return text
    data = files.read_limited(text, _MAX_SIGNATURE_BYTES, "signature file")
    if _BASE64.match(data):
        return b"".join(data.split()).decode("ascii")
    if data.isascii() and data.decode("ascii").strip().isprintable():
        return data.decode("ascii").strip()  # meant as text, and not what it should be; no signature looks like that
    return base64.b64encode(data).decode("ascii")
