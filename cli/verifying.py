"""``chargepki cert verify``: is this certificate valid for this purpose, at this time, under these roots?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.globals import GlobalState, pass_state
from chargepki.cli.values import INSTANT

if TYPE_CHECKING:
    from chargepki.pki.chain import Identity, PathRefusal, Purpose, Revocation, TrustAnchor, VerifiedChain

__all__ = ["add_verify", "read_certificates", "read_objects"]

_PURPOSES = (
    "any",
    "secc",
    "contract",
    "oem-provisioning",
    "cps",
    "vehicle",
    "charging-station",
    "csms",
    "firmware-signing",
)
_USES = ("v2g", "mo", "oem", "private", "cso", "csms", "manufacturer")
# Profiles of roots whose own fields say what they are for, and the use that follows.
_PROVEN_USES = {"v2g-root": "v2g", "mo-root": "mo", "emsp-root": "mo", "oem-root": "oem"}
_CERTIFICATE_LABELS = ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE")
_MAX_FILE_BYTES = 1 << 20
_MAX_CRL_BYTES = 64 << 20
_MAX_OCSP_BYTES = 256 << 10


@click.argument("leaf", metavar="LEAF")
@click.option("--trust", multiple=True, required=True, metavar="[USE=]F", help=f"Root; USE: {', '.join(_USES)}.")
@click.option("--untrusted", multiple=True, metavar="F", help="Sub-CAs, in any order; repeatable.")
@click.option("--crl", "crls", multiple=True, metavar="F", help="Revocation list, complete or delta; repeatable.")
@click.option("--ocsp-response", "ocsp_responses", multiple=True, metavar="F", help="OCSP response (DER); repeatable.")
@click.option("--purpose", type=click.Choice(_PURPOSES), default="any", show_default=True, help="What it is to be for.")
@click.option("--hostname", metavar="N", help="DNS name or IP address that was connected to.")
@click.option("--station-serial", metavar="S", help="Serial number of the station, which the CN must be.")
@click.option("--organization", metavar="O", help="Owner, which O must be.")
@click.option(
    "--revocation",
    type=click.Choice(["off", "if-present", "require"]),
    help="Default: require where a CRL or a response is given, else off.",
)
@click.option(
    "--indirect-crls", is_flag=True, help="Believe CRLs of issuers that a certificate names (RFC 5280 5.2.5)."
)
@click.option("--nonce", metavar="HEX", help="Nonce of the OCSP request: only responses with it count.")
@click.option("--policy", "policies", multiple=True, metavar="OID", help="Acceptable certificate policy; repeatable.")
@click.option("--explicit-policy", is_flag=True, help="Demand that an acceptable policy is valid for the path.")
@click.option("--inhibit-any-policy", is_flag=True, help="Let anyPolicy in certificates stand for nothing.")
@click.option("--inhibit-mapping", is_flag=True, help="Allow no policy mapping.")
@click.option("--at", type=INSTANT, metavar="T", help="Judge as of T; now by default.")
@pass_state
def verify(state: GlobalState, /, **options: Any) -> None:
    """Validate the path from LEAF to a trusted root (RFC 5280), for a purpose.

    Exit 0 when there is a valid path, 1 when there is none; LEAF may hold its chain. With --json the whole search is
    printed, each rejected candidate path with the rule it broke.
    """
    from chargepki.pki.chain import ChainVerifier, PathRefusal, PolicyInputs, Purpose
    from chargepki.pki.oids import ANY_POLICY

    purpose = Purpose(options["purpose"])
    at: datetime = options["at"] or datetime.now(UTC)
    leaf, *companions = read_certificates(options["leaf"])
    inputs = PolicyInputs(
        frozenset(map(_oid, options["policies"])) or frozenset({ANY_POLICY}),
        explicit_policy=options["explicit_policy"],
        inhibit_any_policy=options["inhibit_any_policy"],
        inhibit_mapping=options["inhibit_mapping"],
    )
    anchors = [anchor for text in options["trust"] for anchor in _anchors(text, purpose)]
    bag = [*companions, *(der for file in options["untrusted"] for der in read_certificates(file))]
    revocation, identity = _revocation(options), _identity(options)
    try:
        chain = ChainVerifier(anchors, bag).verify(
            leaf, purpose=purpose, at=at, inputs=inputs, revocation=revocation, identity=identity
        )
    except PathRefusal as refusal:
        _print_refusal(state, refusal, purpose, at)
        raise click.exceptions.Exit(1) from refusal
    _print_chain(state, chain)


def add_verify(group: Any) -> None:
    """Register the command with the noun ``cert``."""
    example = "chargepki cert verify --trust cso=root.pem --untrusted sub.pem --purpose charging-station leaf.pem"
    group.command("verify", verdict=True, example=example)(verify)


def _print_chain(state: GlobalState, chain: VerifiedChain) -> None:
    content = chain.to_json()
    if state.output.for_machines:
        state.output.document("chargepki/chain-verdict", {"valid": True, **content})
        return
    state.output.text(f"valid for {chain.purpose} at {chain.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    statuses = [f", {each.status} ({each.source})" if each.source else f", {each.status}" for each in chain.statuses]
    for row, status in zip(content["path"], [*statuses, *[""] * len(content["path"])], strict=False):
        state.output.text(f"  {row['position']}  {row['certificate']}{' (anchor)' if row['anchor'] else status}")
    for each in chain.search.rejected:
        state.output.reason(f"rejected on the way: {each.refusal.what}")


def _print_refusal(state: GlobalState, refusal: PathRefusal, purpose: Purpose, at: datetime) -> None:
    if state.output.for_machines:
        content = {"valid": False, "purpose": purpose, "at": at, "refusal": refusal.to_json()}
        state.output.document("chargepki/chain-verdict", {**content, "search": refusal.search.to_json()})
        return
    state.report(what=refusal.what, why=refusal.why, fix=refusal.fix, code=refusal.code)
    if not state.output.quiet and state.output.verbose:
        for each in refusal.search.rejected:
            names = " <- ".join(certificate.label for certificate in each.path)
            state.output.reason(f"candidate path {names}: {each.refusal.what}: {each.refusal.why}")
        for note in refusal.search.unusable:
            state.output.reason(f"not used: {note}")


def _read(file: str, what: str, limit: int) -> bytes:
    from chargepki.pki import files
    from chargepki.pki.errors import InputError

    data = files.read_limited(file, limit, what)
    if not data:
        raise InputError(f"{file} is empty", why=f"it should hold a {what}", fix="check the path")
    return data


def read_objects(file: str, what: str, labels: tuple[str, ...], limit: int) -> list[bytes]:
    """Return the DER of every object in *file*, PEM or DER."""
    from chargepki.pki.der import pem_blocks
    from chargepki.pki.errors import InputError

    data = _read(file, what, limit)
    if b"-----BEGIN" not in data:
        return [data]
    found = [block.der for block in pem_blocks(data, max_bytes=limit) if block.label in labels]
    if not found:
        raise InputError(
            f"{file} holds no {what}", why=f"expected is PEM with {labels[0]}, or DER", fix="check the path"
        )
    return found


def read_certificates(file: str) -> list[bytes]:
    """Return the DER of every certificate in *file*, PEM or DER."""
    return read_objects(
        file, "certificate", ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"), _MAX_FILE_BYTES
    )


def _anchors(text: str, purpose: Purpose) -> list[TrustAnchor]:
    """Read ``[USE=]F``; without USE a purpose needs a root whose own profile says what it is for."""
    from chargepki.pki.chain import AnchorUse, Purpose, TrustAnchor

    head, equals, tail = text.partition("=")
    if equals and head in _USES:
        return [TrustAnchor(der, frozenset({AnchorUse(head)})) for der in read_certificates(tail)]
    found = read_certificates(text)
    if purpose is Purpose.ANY:
        return [TrustAnchor(der) for der in found]
    return [TrustAnchor(der, frozenset({AnchorUse(_proven_use(der, text))})) for der in found]


def _proven_use(der: bytes, text: str) -> str:
    from chargepki.pki.certificate_view import view_certificate
    from chargepki.pki.lint import guess_profile, lint_certificate

    profile, reason = guess_profile(view_certificate(der))
    use = _PROVEN_USES.get(profile.id.partition("/")[2]) if profile else None
    # Only a root that keeps every rule of the profile proves it; a name alone proves nothing.
    if use is None or profile is None or lint_certificate(der, profile=profile).errors:
        raise click.UsageError(
            f"--trust {text}: say what this root is for, as USE={text} with USE one of {', '.join(_USES)}; "
            f"the certificate alone does not prove it ({reason})"
        )
    return use


def _revocation(options: dict[str, Any]) -> Revocation:
    from chargepki.pki.chain import Revocation, RevocationMode

    crls = [der for file in options["crls"] for der in read_objects(file, "CRL", ("X509 CRL",), _MAX_CRL_BYTES)]
    responses = [
        der
        for file in options["ocsp_responses"]
        for der in read_objects(file, "OCSP response", ("OCSP RESPONSE",), _MAX_OCSP_BYTES)
    ]
    mode = options["revocation"] or ("require" if crls or responses else "off")
    try:
        nonce = None if options["nonce"] is None else bytes.fromhex(options["nonce"])
    except ValueError:
        raise click.UsageError(f"--nonce {options['nonce']!r} is not hex") from None
    return Revocation(
        RevocationMode(mode), tuple(crls), tuple(responses), allow_indirect=options["indirect_crls"], nonce=nonce
    )


def _identity(options: dict[str, Any]) -> Identity | None:
    from chargepki.pki.chain import Identity

    identity = Identity(options["hostname"], options["station_serial"], options["organization"])
    return None if identity == Identity() else identity


def _oid(text: str) -> str:
    from chargepki.pki import der
    from chargepki.pki.errors import InputError

    try:
        der.oid(text)
    except InputError as error:
        raise click.UsageError(f"--policy {text[:60]!r} is no object identifier: {error.what}") from error
    return text
