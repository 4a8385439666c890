"""Where the simulated station connects: configuration slots, their order, attempts and falling back (A05, B09, B10)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import orjson

from chargepki.ocpp_security.basic_auth import check_identity
from chargepki.ocpp_security.passwords import password_from_wire
from chargepki.ocpp_security.security_profile import DEMANDS, SecurityProfile, judge_change
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.pki import files
from chargepki.pki.errors import InputError, UnavailableError

__all__ = ["SLOTS", "NetworkFacts", "NetworkProfile", "StationNetwork", "parse_endpoint"]

SLOTS: Final = range(1, 5)
"""The slots there are; at least two are asked for (B09.FR.06)."""
_MAX_BYTES: Final = 1 << 16
_OWN_VERSION: Final = {
    OcppVersion.V201: ("OCPP20", None),
    OcppVersion.V21: ("OCPP20", "OCPP201", "OCPP21", None),
}
"""What ocppVersion may say: 2.0.1 has no value for itself, 2.1 leaves the field to be ignored (fact sheet 3.5, 8.3)."""


@dataclass(frozen=True, slots=True)
class NetworkProfile:
    """One slot."""

    url: str
    """``ws://`` or ``wss://``, without the identity."""
    security_profile: int | None = None
    """``None`` in the slot of the commissioning: 1 over ``ws``, else what the store has credentials for."""
    interface: str = "Any"
    message_timeout: int = 30
    """In seconds; read and written, this station has its own."""
    identity: str | None = None
    """2.1: its own; without one that of SecurityCtrlr is used (B09.FR.16, FR.18), as for the password."""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What the decisions depend on beside the slots."""

    profile: Callable[[], int]
    """The highest security profile that has opened a connection; 0 before the first."""
    has_root: Callable[[], bool]
    has_certificate: Callable[[], bool]
    has_password: Callable[[], bool]
    attempts: Callable[[], int]
    """NetworkProfileConnectionAttempts, for each entry of the order."""
    may_be_lowered: Callable[[], bool] = lambda: False
    """AllowSecurityProfileDowngrade: opens 3 to 2, and nothing else."""


class StationNetwork:
    """The slots, durably, and which of them the next attempt to connect goes to.

    After a reboot the order is gone through from its first entry (B10.FR.04), after a lost connection from the slot
    that was in use; when every entry has failed, the slot of the last connection is tried and the order begun again
    (B10.FR.07 to FR.09).
    """

    def __init__(
        self,
        folder: Path,
        version: OcppVersion,
        url: str,
        facts: NetworkFacts,
        *,
        identity: str,
        secure_url: str | None = None,
    ) -> None:
        """Take up the slots of *folder*, or begin with *url* in slot 1 where it was commissioned with another one.

        Args:
            identity: of the commissioning; 2.1 may change it (SecurityCtrlr.Identity), and give slots their own.
            secure_url: 1.6: the endpoint for profiles 2 and 3; without it the same host and port over TLS.

        Raises:
            InputError: a URL that is none.
        """
        self._path, self._version, self._facts = folder / "network.json", version, facts
        self._commissioned = url
        self._secure_url = secure_url
        for each in (url, *([secure_url] if secure_url else [])):
            parse_endpoint(each, "X")
        self.slots: dict[int, NetworkProfile] = {SLOTS[0]: NetworkProfile(url)}
        self.order: tuple[int, ...] = (SLOTS[0],)
        self.active = SLOTS[0]
        self.identities: tuple[str, ...] = (identity,)
        """What SecurityCtrlr.Identity is; while a new one has not opened a connection, the one before as well."""
        self._load()
        self._turns: deque[int] = deque()
        self.restarted()

    # What to try

    @property
    def current(self) -> int:
        """The slot that the next attempt goes to."""
        if not self._turns:
            # Every entry has failed: what has worked last, if it is none of them, and all of them again.
            fallback = [self.active] if self.active not in self.order else []
            self._turns.extend((*fallback, *self._round()))
        return self._turns[0]

    @property
    def profile(self) -> NetworkProfile:
        """The slot's content."""
        return self.slots[self.current]

    def restarted(self) -> None:
        """Begin with the first entry of the order, as after a reboot (B10.FR.04, A05.FR.05)."""
        self._turns = deque(self._round())

    def failed(self) -> None:
        """Take the report that the attempt failed."""
        self._turns.popleft()
        _ = self.current

    def connected(self, profile: int, identity: str | None = None) -> str | None:
        """Take the report that the present slot opened a connection on *profile* as *identity*.

        A raised profile takes every lower slot away (A05.FR.06). A station of 1.6 that is back on its old profile
        forgets the one that it could not use (1.6 A05.FR.08).

        Returns:
            What changed, in words; ``None`` when nothing did.
        """
        slot, before = self.current, (dict(self.slots), self.order, self.active, self.identities)
        if self.slots[slot].identity is None and identity in self.identities:
            self.identities = (identity,)
        lower = [number for number, each in self.slots.items() if _least(each) < profile and number != slot]
        fell_back = self._version is OcppVersion.V16 and slot != self.order[0]
        gone = set(lower) | (set(self.slots) - {slot} if fell_back else set())
        self.slots = {number: each for number, each in self.slots.items() if number not in gone}
        self.order = tuple(number for number in self.order if number not in gone) or (slot,)
        self.active = slot
        self._turns = deque([slot] * self._facts.attempts() + list(self._round()))
        if (self.slots, self.order, self.active, self.identities) == before:
            return None
        self._save()
        removed = f"; removed {', '.join(f'slot {number}' for number in sorted(gone))}" if gone else ""
        return f"slot {slot} is in use{removed}"

    # What the CSMS asks for

    def set_profile(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer SetNetworkProfile of 2.x: judge the content and store it, for the next attempt to use.

        Clause: B09.FR.01 to FR.05, FR.31.
        """
        slot, data = int(payload["configurationSlot"]), payload["connectionData"]
        if slot not in SLOTS:
            return _refusal("InvalidConfSlot", f"slots are {SLOTS[0]} to {SLOTS[-1]}")
        profile = int(data["securityProfile"])
        if self.is_downgrade(profile):
            return _refusal("NoSecurityDowngrade", "the security profile is never lowered")
        why = self._unusable(data, profile)
        if why is not None:
            return _refusal("InvalidNetworkConf", why)
        new = NetworkProfile(
            str(data["ocppCsmsUrl"]), profile, str(data["ocppInterface"]), int(data["messageTimeout"]),
            data.get("identity"), data.get("basicAuthPassword"),
        )  # fmt: skip
        return {"status": "Accepted" if self.put(slot, new) else "Failed"}

    def put(self, slot: int, profile: NetworkProfile) -> bool:
        """Store the content of a slot; ``False``, and nothing changed, when it cannot be stored (B09.FR.03)."""
        before = self.slots
        self.slots = {**self.slots, slot: profile}
        try:
            self._save()
        except UnavailableError:
            self.slots = before
            return False
        return True

    def is_downgrade(self, profile: int) -> bool:
        """Say whether *profile* is a lower one than the station may go to (A05.FR.08 to FR.10, B09.FR.31)."""
        if profile not in (1, 2, 3):
            return False
        verdict = judge_change(
            self._facts.profile(),
            SecurityProfile(profile),
            csms_root_installed=True,
            station_certificate_installed=True,
            downgrade_allowed=self._facts.may_be_lowered(),
        )
        return not verdict.accepted

    def identity(self) -> str:
        """Return what SecurityCtrlr.Identity reads as: that of the slot in use where it has its own (B09.FR.28)."""
        return self.slots[self.active].identity or self.identities[0]

    def set_identity(self, value: str) -> None:
        """Store a new SecurityCtrlr.Identity, and let the slot in use have none of its own any more (B09.FR.26)."""
        self.identities = tuple(dict.fromkeys((value, *self.identities)))[:2]
        self.slots = {**self.slots, self.active: replace(self.slots[self.active], identity=None)}
        self._save()

    def forget_password(self) -> None:
        """Let the slot in use have no password of its own any more: SecurityCtrlr has got one (B09.FR.27)."""
        if self.slots[self.active].password is not None:
            self.slots = {**self.slots, self.active: replace(self.slots[self.active], password=None)}
            self._save()

    def _unusable(self, data: Mapping[str, Any], profile: int) -> str | None:
        """Say why a slot's content cannot be used (B09.FR.02)."""
        if profile not in (1, 2, 3):
            return "the security profile is 1, 2 or 3"
        if data["ocppTransport"] != "JSON" or data.get("ocppVersion") not in _OWN_VERSION.get(self._version, ()):
            return f"this station speaks {self._version.value} over JSON"
        if "apn" in data or "vpn" in data:
            return "this station has neither APN nor VPN"
        try:
            if "identity" in data:
                check_identity(str(data["identity"]))
            if "basicAuthPassword" in data:
                password_from_wire(str(data["basicAuthPassword"]), self._version)
            parse_endpoint(str(data["ocppCsmsUrl"]), "X")
        except InputError as error:
            return error.what
        return _misfit(str(data["ocppCsmsUrl"]), profile)

    def takes_order(self, value: str) -> bool:
        """Say whether *value* is an order of slots that all can be used.

        Clause: B10.FR.01, FR.02; A05.FR.02 to FR.04, FR.10.
        """
        order = _parse_order(value)
        if order is None:
            return False
        if set(order) < set(self.order) and [number for number in self.order if number in order] == list(order):
            return True  # B09.FR.20: it only leaves slots out
        return all(number in self.slots and self._allows(self.slots[number]) for number in order)

    def set_order(self, value: str) -> None:
        """Store an order that `takes_order` has found good; it counts from the next reboot on."""
        order = _parse_order(value)
        if order is not None and order != self.order:
            self.order = order
            self._save()

    def order_text(self) -> str:
        """Return NetworkConfigurationPriority."""
        return ",".join(map(str, self.order))

    def raise_profile(self, value: str) -> str:
        """Answer a ChangeConfiguration of SecurityProfile (1.6), and prepare the change; return the status.

        Clause: 1.6 A05.FR.01 to FR.05.
        """
        active, wanted = self._facts.profile(), int(value) if value in ("1", "2", "3") else 0
        if wanted <= active:
            return "Rejected"
        url = self.slots[self.active].url
        if DEMANDS[SecurityProfile(wanted)].tls:
            url = self._secure_url or urlunsplit(urlsplit(url)._replace(scheme="wss"))
        new = NetworkProfile(url, wanted)
        if (wanted < 3 and not self._facts.has_password()) or not self._allows(new):
            return "Rejected"
        slot = next(number for number in SLOTS if number != self.active)
        before = self.slots, self.order
        self.slots, self.order = {self.active: self.slots[self.active], slot: new}, (slot, self.active)
        try:
            self._save()
        except UnavailableError:
            self.slots, self.order = before
            return "Rejected"
        return "Accepted"

    # Parts

    def _round(self) -> Sequence[int]:
        return [number for number in self.order for _ in range(self._facts.attempts())]

    def _allows(self, profile: NetworkProfile) -> bool:
        if not profile.url or _misfit(profile.url, profile.security_profile) is not None:
            return False  # written variable by variable, and not all of them
        reached = _least(profile)
        if profile.security_profile is None and reached == 2 and self._facts.has_certificate():
            reached = 3
        verdict = judge_change(
            self._facts.profile(),
            SecurityProfile(reached),
            csms_root_installed=self._facts.has_root(),
            station_certificate_installed=self._facts.has_certificate(),
            downgrade_allowed=self._facts.may_be_lowered(),
        )
        return verdict.accepted

    def _save(self) -> None:
        document = {
            "schema": "chargepki.station-network",
            "schema_version": 1,
            "commissioned": self._commissioned,
            "slots": {
                str(number): {key: value for key, value in asdict(each).items() if value is not None}
                for number, each in self.slots.items()
            },
            "order": self.order,
            "active": self.active,
            "identities": self.identities,
        }
        files.write_durable(self._path, orjson.dumps(document, option=orjson.OPT_INDENT_2), mode=0o600)

    def _load(self) -> None:
        if not self._path.exists():
            return
        try:
            document = orjson.loads(files.read_limited(self._path, _MAX_BYTES, "network.json"))
            if document["commissioned"] != self._commissioned:
                return  # whoever names another CSMS commissions the station anew
            slots = {int(number): NetworkProfile(**each) for number, each in document["slots"].items()}
            order = tuple(int(number) for number in document["order"])
            active = int(document["active"])
            if not order or not {active, *order} <= set(slots):
                raise ValueError("a slot is named that is not there")
            for number in {active, *order}:
                parse_endpoint(slots[number].url, "X")
            self.slots, self.order, self.active = slots, order, active
            self.identities = tuple(map(str, document.get("identities") or self.identities))
        except (ValueError, KeyError, TypeError, InputError) as exc:
            why = type(exc).__name__
            raise InputError(f"{self._path} cannot be read", why=why, fix="remove it: the station begins anew") from exc


def parse_endpoint(url: str, identity: str) -> str:
    """Return the address of *identity* under the URL of a CSMS; without a path ``/ocpp`` is meant.

    Raises:
        InputError: it is no ``ws://`` or ``wss://`` URL.

    >>> parse_endpoint("wss://csms.example:8443", "CS 1")
    'wss://csms.example:8443/ocpp/CS%201'
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.username is None
        usable = usable and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no port, or half an IPv6 address
        usable = False
    if not usable:
        raise InputError(f"not the URL of a CSMS: {url[:100]!r}", fix="use ws://HOST:PORT or wss://HOST:PORT")
    path = parts.path.rstrip("/") or "/ocpp"
    return f"{parts.scheme}://{parts.netloc}{path}/{quote(identity, safe='')}"


def _misfit(url: str, profile: int | None) -> str | None:
    """Say why *profile* cannot be used with *url*; ``None``: it can."""
    scheme = urlsplit(url).scheme
    if profile is None or DEMANDS[SecurityProfile(profile)].tls == (scheme == "wss"):
        return None
    return f"profile {profile} does not fit {scheme}://"


def _least(profile: NetworkProfile) -> int:
    """Return the security profile of a slot; of the one of the commissioning the least that it may be used on."""
    if profile.security_profile is not None:
        return profile.security_profile
    return 2 if profile.url.startswith("wss:") else 1


def _parse_order(value: str) -> tuple[int, ...] | None:
    """Return the slots of a NetworkConfigurationPriority; ``None`` for what is none."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
        return None
    order = tuple(map(int, parts))
    return order if len(set(order)) == len(order) else None


def _refusal(reason: str, text: str) -> dict[str, Any]:
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason, "additionalInfo": text}}
