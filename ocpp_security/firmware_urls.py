"""Short-lived URLs for images: each names one station and one image, and only the workspace can make it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from chargepki.ocpp_security.errors import OcppRefusal, StatusAnswer
from chargepki.pki.errors import InputError, SignerError
from chargepki.pki.inventory import SealingKey

__all__ = ["PATH", "ImageTicket", "make_location", "open_ticket"]

PATH: Final = "/firmware/"
_CONTEXT: Final = "firmware-url v2"
_MAX_TICKET: Final = 512


@dataclass(frozen=True, slots=True)
class ImageTicket:
    """What a URL allows."""

    station: str
    sha256: str
    """Of the image, lower-case hex."""
    begins: datetime
    until: datetime
    """First and last instant, whole seconds: a URL for next month's update is of no use to anybody today."""


def make_location(base_url: str, ticket: ImageTicket, name: str, sealing: SealingKey) -> str:
    """Return the URL of a ticket; about 200 characters and the base.

    Sealed, not only signed: the URL of one station does not tell it the names of others, nor us in a log.

    Args:
        base_url: of the server that serves images, without a slash at its end.
        name: last part of the path, for people and for stations that look at a file's name.
    """
    times = b"".join(int(each.timestamp()).to_bytes(8) for each in (ticket.begins, ticket.until))
    octets = times + bytes.fromhex(ticket.sha256) + ticket.station.encode()
    token = base64.urlsafe_b64encode(sealing.seal(octets, _CONTEXT)).decode("ascii").rstrip("=")
    return f"{base_url.rstrip('/')}{PATH}{token}/{quote(name, safe='')}"


def open_ticket(token: str, sealing: SealingKey, now: datetime) -> ImageTicket:
    """Return what *token* (of the path) allows.

    Raises:
        OcppRefusal: not made here, changed, or not its time; all alike for the peer.
    """
    try:
        if len(token) > _MAX_TICKET:
            raise InputError("too long")
        octets = sealing.open(
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True), _CONTEXT
        )
        begins, until = (datetime.fromtimestamp(int.from_bytes(octets[at : at + 8]), UTC) for at in (0, 8))
        ticket = ImageTicket(octets[48:].decode(), octets[16:48].hex(), begins, until)
    except (ValueError, binascii.Error, SignerError, InputError, OverflowError) as exc:
        raise _refused("the URL was not made here") from exc
    if now < ticket.begins:
        raise _refused(f"the URL of {ticket.station} begins {ticket.begins:%Y-%m-%d %H:%M:%S}Z")
    if now > ticket.until:
        raise _refused(f"the URL of {ticket.station} ended {ticket.until:%Y-%m-%d %H:%M:%S}Z")
    return ticket


def _refused(what: str) -> OcppRefusal:
    return OcppRefusal(what, answer=StatusAnswer("Rejected"), fix="order the update again")
