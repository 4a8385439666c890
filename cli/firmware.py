"""``chargepki firmware``: sign images, and verify them as a station must."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from chargepki.cli.firmware_releases import add_release_commands
from chargepki.cli.globals import GlobalState, group, pass_state
from chargepki.cli.values import INSTANT

if TYPE_CHECKING:
    from chargepki.ocpp_security.firmware_image import BegunDigest

__all__ = ["firmware"]

_HASHES = ("sha256", "sha384", "sha512")
_QUIRKS = ("pkcs1-v15",)
_hash_option = click.option(
    "--hash",
    "hash_name",
    type=click.Choice(_HASHES),
    default="sha256",
    show_default=True,
    help="The standard knows sha256 alone.",
)
_quirk_option = click.option(
    "--quirk",
    "quirks",
    multiple=True,
    type=click.Choice(_QUIRKS),
    help="pkcs1-v15: RSA signatures as some stations want them, against the standard.",
)


@group("firmware", example="chargepki firmware verify image.bin --signature image.sig --cert fw.pem --trust root.pem")
def firmware() -> None:
    """Sign firmware images, verify them as a station must, and keep releases that a second person approves."""


add_release_commands(firmware)


def _begin(options: Mapping[str, Any]) -> AbstractContextManager[BegunDigest | None]:
    """Have the image read in a thread while everything else that the command needs is loaded."""
    from chargepki.ocpp_security.firmware_image import FirmwareHash, begin_digest

    return begin_digest(options["image"], FirmwareHash(options["hash_name"]))


@firmware.command(
    "sign", example="chargepki firmware sign image.bin --key fw.key --cert fw.pem --trust root.pem --out image.sig"
)
@click.argument("image", metavar="IMAGE")
@click.option("--key", required=True, metavar="F|URI", help="Private key: a file (PKCS#8), or a URI of a key store.")
@click.option("--cert", required=True, metavar="F", help="Certificate of the key, profile ocpp/firmware-signing.")
@click.option("--trust", multiple=True, metavar="F", help="Manufacturer root that the stations have; repeatable.")
@_hash_option
@_quirk_option
@click.option("--raw", is_flag=True, help="Write the signature's octets, as openssl takes them, in place of base64.")
@click.option("--out", "-o", metavar="F", help="File for the signature.")
@click.option("--dry-run", is_flag=True, help="Sign, verify and report, write no file.")
@pass_state
def sign(state: GlobalState, /, **options: Any) -> None:
    """Sign IMAGE (a file, or - for standard input) and print the signature, base64 in one line.

    ECDSA or RSA-PSS with SHA-256, as L01.FR.04 asks. The image is read once, whatever its size. With --trust the
    certificate is checked as a station will check it.
    """
    with _begin(options) as begun:
        from chargepki.cli.firmware_images import sign_image

        sign_image(state, options, begun)


@firmware.command(
    "verify",
    verdict=True,
    example="chargepki firmware verify image.bin --signature image.sig --cert fw.pem --trust root.pem --crl root.crl",
)
@click.argument("image", metavar="IMAGE")
@click.option("--signature", required=True, metavar="F|BASE64", help="Base64, or a file with base64 or raw octets.")
@click.option("--cert", required=True, metavar="F", help="Firmware signing certificate.")
@click.option(
    "--trust", multiple=True, metavar="F", help="Manufacturer root; repeatable. By default those of the workspace."
)
@click.option("--crl", "crls", multiple=True, metavar="F", help="Revocation list; repeatable.")
@click.option("--ocsp-response", "ocsp_responses", multiple=True, metavar="F", help="OCSP response (DER); repeatable.")
@_hash_option
@_quirk_option
@click.option("--at", type=INSTANT, metavar="T", help="Judge as of T; now by default.")
@click.option("--version", metavar="V", help="Version of IMAGE, with --installed.")
@click.option("--installed", metavar="V", help="Version that the station runs: an older IMAGE is refused.")
@pass_state
def verify(state: GlobalState, /, **options: Any) -> None:
    """Verify IMAGE (a file, or - for standard input) in the order of a station: certificate, digest, signature.

    With --version and --installed, a genuine image that is older than what is installed is refused last.

    Exit 0 when a station must accept it, 1 when it must not. The verdict names the status and the security event
    that a station answers with. Revocation is demanded to be known where a CRL or a response is given.
    """
    at: datetime | None = options.pop("at")
    with _begin(options) as begun:
        from chargepki.cli.firmware_images import verify_image

        verify_image(state, options, begun, at=at)


@firmware.command("mutate", example="chargepki firmware mutate image.bin --out-dir ./mutations")
@click.argument("image", metavar="GOOD")
@click.option("--out-dir", required=True, metavar="D", help="Folder for the pack; must be empty or absent.")
@click.option("--older", metavar="F", help="An earlier release, for the case of a rollback.")
@click.option("--dry-run", is_flag=True, help="Make every case, list them, write no file.")
@pass_state
def mutate(state: GlobalState, image: str, out_dir: str, older: str | None, dry_run: bool) -> None:
    """Write from the image GOOD a pack of updates to test stations with: bad ones, and odd ones that are good.

    The pack has a manufacturer root of its own, to be installed on the station under test. manifest.json says for each
    case the answer, the statuses and the security event that the standard asks for, and why.
    """
    from chargepki.cli.firmware_packs import write_pack

    write_pack(state, image, out_dir, older=older, dry_run=dry_run)
