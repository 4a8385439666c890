"""Carry out ``est enrol`` and ``est renew``: make key and request, ask, check the answer, write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chargepki.cli.globals import GlobalState
from chargepki.cli.results import check_folder, write_result
from chargepki.pki import der, files, keys, names, private_keys
from chargepki.pki.chain.order import order_chain
from chargepki.pki.csr import CertificateRequest, parse_csr
from chargepki.pki.errors import Conflict, InputError, StateError
from chargepki.pki.keys import KeyAlgorithm, PrivateKey
from chargepki.pki.services.est_client import EstClient, EstCredentials, Pending, pem_of

__all__ = ["client_for", "enrol_with"]

_MAX_BYTES = 1 << 16


def client_for(url: str, options: Mapping[str, Any]) -> EstClient:
    """Return the client that the options describe.

    Raises:
        click.UsageError: half of a pair of options.
    """
    if bool(options["user"]) != bool(options["password_file"]):
        raise click.UsageError("--user and --password-file belong together")
    if bool(options["certificate_file"]) != bool(options["key_file"]):
        raise click.UsageError("--cert and --key belong together")
    password = None
    if options["password_file"]:
        password = files.read_limited(options["password_file"], 1024, "password file").removesuffix(b"\n")
    credentials = EstCredentials(
        user=options["user"],
        password=password,
        certificate_file=_path(options["certificate_file"]),
        key_file=_path(options["key_file"]),
    )
    return EstClient(url, trust_file=_path(options["trust"]), credentials=credentials)


def enrol_with(state: GlobalState, url: str, options: Mapping[str, Any], *, renew: bool) -> None:
    """Enrol or renew, and write certificate, chain and key."""
    if bool(options["csr"]) and options["new_key"]:
        raise click.UsageError("pass either --csr FILE or --new-key")
    if options["new_key"] and not options["key_out"]:
        raise click.UsageError("--new-key needs --key-out FILE")
    if not renew and not options["csr"] and not options["new_key"]:
        raise click.UsageError("pass either --csr FILE or --new-key")
    for option in ("out", "chain_out", "key_out"):
        check_folder(f"--{option.replace('_', '-')}", options[option])
    client = client_for(url, options)
    request = _request(state, options, renew=renew)
    answer = client.enrol_until(
        request.der,
        renew=renew,
        wait_seconds=options["wait"].total_seconds(),
        tell=lambda pending: state.output.say(f"not decided yet; asking again in {pending.retry_after} s"),
    )
    if isinstance(answer, Pending):
        raise StateError(
            "the EST server has not decided yet",
            why=f"it says to come back in {answer.retry_after} s",
            fix="repeat this command later: the same request is continued",
        )
    leaf = next((each for each in answer if _spki(each) == request.spki_der), None)
    if leaf is None:
        raise InputError(
            "the certificate of the answer is not for the key of the request",
            why="whoever holds the other key could act in our name",
            fix="tell the operator of the EST server; nothing was written",
        )
    chain = order_chain(leaf, (*answer, *(client.get_cacerts() if options["chain_out"] else ())))
    write_result(state, der.to_pem("CERTIFICATE", leaf).encode(), options["out"])
    if options["chain_out"]:
        write_result(state, pem_of(tuple(chain)).encode(), options["chain_out"])
    if options["new_key"]:
        path, waiting = _key_paths(options)
        files.move_new(waiting, path)
        state.output.say(f"wrote {path}")


def _request(state: GlobalState, options: Mapping[str, Any], *, renew: bool) -> CertificateRequest:
    if options["csr"]:
        return parse_csr(files.read_limited(options["csr"], _MAX_BYTES, "certificate request"))
    if renew:
        data = files.read_limited(options["certificate_file"], _MAX_BYTES, "certificate")
        blocks = der.pem_blocks(data, max_bytes=_MAX_BYTES)
        if not blocks or blocks[0].label != "CERTIFICATE":
            raise InputError(f"{options['certificate_file']} begins with no certificate", fix="pass PEM, leaf first")
        held = blocks[0].der
        subject = x509.load_der_x509_certificate(held).subject
    elif options["subject"]:
        subject = names.build_name(options["subject"])
    else:
        raise click.UsageError("--new-key needs --subject RDNS")
    key = _new_key(state, options) if options["new_key"] else _held_key(options)
    algorithm = keys.signature_algorithm(keys.algorithm_of(key))
    info = der.sequence(
        der.integer(0), subject.public_bytes(), keys.spki_der(key), der.implicit(0, b"", constructed=True)
    )
    return parse_csr(der.sequence(info, algorithm.der, der.bit_string(keys.sign(key, info))))


def _held_key(options: Mapping[str, Any]) -> PrivateKey:
    return private_keys.load_private_key(files.read_limited(options["key_file"], _MAX_BYTES, "private key"))


def _new_key(state: GlobalState, options: Mapping[str, Any]) -> PrivateKey:
    """Return the new key, on the disk before anybody is told of it; one that an interrupted run left is taken up.

    ECDSA signs with random numbers, so the request of a repeated run differs; the server sees another request then.
    """
    path, waiting = _key_paths(options)
    if path.exists() and not waiting.exists():
        raise Conflict(
            f"{path} exists already",
            why="a key is never overwritten",
            fix="choose another --key-out, or pass a --csr made with that key",
        )
    try:
        algorithm = KeyAlgorithm(options["key_algorithm"])
    except ValueError as error:
        known = ", ".join(each.value for each in KeyAlgorithm)
        raise InputError(f"unknown key algorithm {options['key_algorithm'][:40]!r}", fix=f"one of {known}") from error
    if waiting.exists():
        state.output.say(f"taking up the key that an interrupted run left in {waiting}")
        return private_keys.load_private_key(files.read_private(waiting))
    key = keys.generate_private_key(algorithm)
    files.write_new(waiting, private_keys.serialise_private_key(key), mode=0o600)
    return key


def _key_paths(options: Mapping[str, Any]) -> tuple[Path, Path]:
    path = Path(options["key_out"])
    return path, path.with_name(f"{path.name}.part")


def _spki(certificate_der: bytes) -> bytes:
    return (
        x509.load_der_x509_certificate(certificate_der)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
