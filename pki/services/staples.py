"""Prepared OCSP responses for those who hand them on: TLS servers that staple, and a CSMS that answers its stations.

One response for anybody, as from the responder; batches for whoever holds a token, since a batch lists what a CA has
issued.

Clause: ISO 15118-2 [V2G2-649], ISO 15118-20 [V2G20-1021] (stapled responses are refreshed weekly at least); OCPP M06.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import orjson

from chargepki.pki import files
from chargepki.pki.authority.ocsp import PRESIGNED_HASHES, is_answered_for
from chargepki.pki.errors import InputError, SignerError, UnavailableError
from chargepki.pki.inventory import Inventory
from chargepki.pki.inventory.ocsp_records import OcspResponseRecord
from chargepki.pki.services.http import Request, Response, if_none_match, plain, refuse_method
from chargepki.pki.services.ocsp_memory import AnswerMemory

__all__ = ["Staples", "is_loopback", "read_tokens"]

CONTENT_TYPE: Final = "application/x-ndjson"
MAX_PAGE: Final = 1000
"""Responses in one page: about a MiB."""
_MAX_SERIALS: Final = 100
_AT_ONCE: Final = 8
_SLACK: Final = timedelta(seconds=60)
"""A response is committed later than it was signed, perhaps on a machine whose clock is a little behind."""
_MIN_TOKEN: Final = 24
_CA: Final = r"(?P<ca>[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[1-9][0-9]{0,8})"
_ONE: Final = re.compile(rf"/staples/{_CA}/(?P<serial>[0-9a-f]{{1,64}})\.ocsp", re.ASCII)
_BATCH: Final = re.compile(rf"/staples/{_CA}", re.ASCII)
_SERIAL: Final = re.compile(r"[0-9A-Fa-f]{1,64}", re.ASCII)
_CURSOR: Final = re.compile(r"(?P<since>[0-9]{1,11})(?:\.(?P<after>[0-9a-f]{1,64})\.(?P<floor>[0-9]{1,11}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far a reader has come."""

    since: datetime
    after: str = ""
    """Serial of the last one of that second."""
    floor: datetime | None = None
    """Up to which the next walk need not look: all of that was committed when this one began."""


class _Refused(Exception):
    def __init__(self, response: Response) -> None:
        self.response = response


class Staples:
    """Answers requests below ``/staples/``; for one event loop.

    Args:
        tokens: returns what opens a batch; asked at each request for one. Without it there are no batches.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        tokens: Callable[[], Sequence[bytes]] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
    ) -> None:
        self._inventory, self._tokens, self._clock = inventory, tokens, clock
        self._under_way = 0

    async def answer(self, request: Request, path: bytes) -> Response:
        """Answer one request; *path* is that below the public URL."""
        if request.method not in ("GET", "HEAD"):
            return refuse_method("GET", "staples")
        if self._under_way >= _AT_ONCE:
            return _plain(503, "too many ask at once", ("Retry-After", "1"))
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._answer, request, path.decode("latin-1"))
        except _Refused as refused:
            return refused.response
        except UnavailableError:
            return _plain(503, "the inventory cannot be reached", ("Retry-After", "5"))
        finally:
            self._under_way -= 1

    def _answer(self, request: Request, path: str) -> Response:
        query = _query(request)
        hash_name = query.get("hash", ["sha1"])[-1]
        if hash_name not in PRESIGNED_HASHES:
            raise _Refused(_plain(400, f"hash is {' or '.join(PRESIGNED_HASHES)}"))
        if one := _ONE.fullmatch(path):
            return self._one(request, one["ca"], one["serial"], hash_name)
        if batch := _BATCH.fullmatch(path):
            self._admit(request)
            return self._batch(request, batch["ca"], hash_name, query)
        raise _Refused(_plain(404, "see /staples/CA@N/SERIAL.ocsp and /staples/CA@N"))

    # -- one --------------------------------------------------------------------------------------------------------

    def _one(self, request: Request, ca: str, serial: str, hash_name: str) -> Response:
        self._check_ca(ca)
        record = self._find(ca, serial, hash_name)
        if record is None:
            raise _Refused(_plain(404, "no response is prepared for that certificate"))
        response = AnswerMemory.prepare(record).bounded()
        assert response is not None
        return if_none_match(request, Response(200, response.body, response.headers, "staples", response.outcome))

    def _find(self, ca: str, serial: str, hash_name: str) -> OcspResponseRecord | None:
        record = self._inventory.find_ocsp_response(f"{ca}:{serial}", hash_name)
        return record if record is not None and record.next_update > self._clock() else None

    def _check_ca(self, name: str) -> None:
        ca = self._inventory.find_ca(name)
        if ca is None or not is_answered_for(self._inventory, ca, self._clock()):
            raise _Refused(_plain(404, "there is no CA of that name to answer for"))

    # -- batches ----------------------------------------------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        """Refuse a batch to whoever shows no token, or would show it to everybody on the way."""
        if self._tokens is None:
            raise _Refused(_plain(404, "no batches are offered here"))
        if not (request.is_tls or is_loopback(request.peer)):
            raise _Refused(_plain(403, "batches are handed out over TLS: a token would be read on the way"))
        try:
            known = [hashlib.sha256(token).digest() for token in self._tokens()]
        except (InputError, SignerError, UnavailableError):
            raise _Refused(_plain(503, "the tokens cannot be read", ("Retry-After", "30"))) from None
        scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
        shown = hashlib.sha256(given.strip()).digest()
        # All are compared, so that the time tells nothing about which of them is nearly right.
        right = [hmac.compare_digest(shown, each) for each in known]
        if scheme.lower() != b"bearer" or not any(right):
            raise _Refused(_plain(401, "show a token", ("WWW-Authenticate", 'Bearer realm="staples"')))

    def _batch(self, request: Request, ca: str, hash_name: str, query: Mapping[str, list[str]]) -> Response:
        self._check_ca(ca)
        if "serial" in query:
            records, ending = self._named(ca, hash_name, query["serial"])
        else:
            records, ending = self._changed(ca, hash_name, query)
        lines = [_line(record) for record in records]
        # The last line is left out: it tells the time, and nothing has changed while the responses are the same.
        tag = hashlib.sha256(b"".join(lines)).hexdigest()
        head = {"schema": "chargepki/staples", "schema_version": 1, "ca": ca, "hash": hash_name, "count": len(lines)}
        body = b"".join((*lines, orjson.dumps(head | ending), b"\n"))
        headers = (("Content-Type", CONTENT_TYPE), ("Cache-Control", "private, no-cache"), ("ETag", f'"{tag}"'))
        return if_none_match(request, Response(200, body, headers, "staples", "batch"))

    def _named(self, ca: str, hash_name: str, serials: list[str]) -> tuple[list[OcspResponseRecord], dict[str, object]]:
        if len(serials) > _MAX_SERIALS or not all(map(_SERIAL.fullmatch, serials)):
            raise _Refused(_plain(400, f"serial is hex, and at most {_MAX_SERIALS} are asked for at once"))
        wanted = dict.fromkeys(each.lower().lstrip("0") or "0" for each in serials)
        found = {serial: self._find(ca, serial, hash_name) for serial in wanted}
        records = [record for record in found.values() if record is not None]
        return records, {"missing": [serial for serial, record in found.items() if record is None]}

    def _changed(
        self, ca: str, hash_name: str, query: Mapping[str, list[str]]
    ) -> tuple[list[OcspResponseRecord], dict[str, object]]:
        now = self._clock()
        cursor = _read_cursor(query.get("since", ["0"])[-1])
        page = _read_page(query.get("limit", [str(MAX_PAGE)])[-1])
        floor = cursor.floor or now - _SLACK
        after = f"{ca}:{cursor.after}" if cursor.after else ""
        found = self._inventory.list_ocsp_changes(ca, hash_name, since=cursor.since, after=after, limit=page)
        records = [record for record in found if record.next_update > now]
        if len(found) < page:
            return records, {"complete": True, "next": str(_seconds(floor))}
        last = found[-1]
        following = f"{_seconds(last.this_update)}.{last.certificate.rpartition(':')[2]}.{_seconds(floor)}"
        return records, {"complete": False, "next": following}


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the tokens of a file that only its owner can read: one a line; empty lines and those with # are none.

    Raises:
        UnavailableError: there is no such file.
        SignerError: it cannot be read, or others can read it.
        InputError: no token in it, or one of fewer than 24 characters.
    """
    if not path.exists():
        raise UnavailableError(
            f"there is no file of tokens {path}",
            why="each line of it opens batches of prepared responses",
            fix=f"make one with: (umask 077; openssl rand -hex 32 > {path})",
        )
    lines = [line.strip() for line in files.read_private(path).splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not tokens or min(map(len, tokens)) < _MIN_TOKEN:
        raise InputError(
            f"{path} holds no token, or one that is too short",
            why=f"each line is a token of at least {_MIN_TOKEN} characters",
            fix=f"make one with: openssl rand -hex 32 >> {path}",
        )
    return tokens


def _line(record: OcspResponseRecord) -> bytes:
    fields = {
        "serial": record.certificate.rpartition(":")[2],
        "status": record.status.partition(" ")[0],
        "this_update": record.this_update,
        "next_update": record.next_update,
        "response": base64.b64encode(record.der).decode("ascii"),
    }
    return orjson.dumps(fields, option=orjson.OPT_UTC_Z) + b"\n"


def _query(request: Request) -> dict[str, list[str]]:
    try:
        text = request.target.partition(b"?")[2].decode("ascii")
        return parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_MAX_SERIALS + 5)
    except ValueError:
        raise _Refused(_plain(400, "the query cannot be read")) from None


def _read_cursor(text: str) -> _Cursor:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise _Refused(_plain(400, "since is what the last answer gave as next"))
    floor = None if match["floor"] is None else _instant(match["floor"])
    return _Cursor(_instant(match["since"]), match["after"] or "", floor)


def _read_page(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MAX_PAGE):
        raise _Refused(_plain(400, f"limit is 1 to {MAX_PAGE}"))
    return int(text)


def _instant(text: str) -> datetime:
    return datetime.fromtimestamp(int(text), UTC)


def _seconds(at: datetime) -> int:
    return max(0, int(at.timestamp()))


def is_loopback(peer: str) -> bool:
    """Whether a peer, an address with its port, is on this machine."""
    try:
        address = ipaddress.ip_address(peer.rpartition(":")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return plain(status, text, endpoint="staples", headers=headers)
