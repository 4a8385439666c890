"""The settings of ``csms serve``: its flags, and the table ``[csms]`` of ``chargepki.toml`` behind them."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import click

from chargepki.cli.values import DURATION
from chargepki.ocpp_security.csms import CsmsLimits
from chargepki.pki import files
from chargepki.pki.errors import InputError
from chargepki.pki.toml_places import Place, find_places

__all__ = ["SETTINGS", "CsmsSetting", "Secret", "changed_settings", "load_csms_settings"]

_MAX_CONFIG_BYTES = 1 << 20
_MAX_SECRET_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is; never the secret itself."""

    file: str | None = None
    env: str | None = None

    def read(self, what: str) -> bytes:
        """Return the secret, without the line end of a file.

        Raises:
            InputError: the variable is not set, or the secret is empty.
            SignerError: the file is readable by others.
            UnavailableError: the file cannot be read.
        """
        if self.env is not None:
            found = os.environb.get(os.fsencode(self.env), b"")
        else:
            assert self.file is not None, "one of the two is given"
            found = files.read_private(Path(self.file))[:_MAX_SECRET_BYTES].rstrip(b"\r\n")
        if not found:
            where = f"the variable {self.env}" if self.env is not None else self.file
            raise InputError(f"{what} is empty: {where}", fix="put the secret there")
        return found

    def __str__(self) -> str:
        return f"{{env = {self.env}}}" if self.env is not None else f"{{file = {self.file}}}"


@dataclass(frozen=True, slots=True)
class CsmsSetting:
    """One key of the table, and the option of the command that it stands behind."""

    key: str
    option: str
    """Name of the parameter of ``csms serve``."""
    kind: str
    """``text``, ``flag``, ``texts``, ``plans``, ``profiles``, ``whole``, ``secret`` or ``secrets``."""
    meaning: str
    reloads: bool = False
    """Whether SIGHUP applies a change; otherwise it is told that a restart is needed."""
    default: Any = None


SETTINGS: Final[tuple[CsmsSetting, ...]] = (
    CsmsSetting("listen", "listen", "text", "address and port to bind, HOST:PORT"),
    CsmsSetting("security_profile", "profiles", "profiles", "1, 2, 3 or [2, 3]; 0 or [0, 1] for old 1.6 stations"),
    CsmsSetting("tls_cert", "tls_certs", "texts", "server chain in PEM, leaf first; one or a list", reloads=True),
    CsmsSetting(
        "tls_key", "tls_keys", "secrets", "key of the chain at the same place; path, file or env", reloads=True
    ),
    CsmsSetting("tls_ca", "tls_ca", "text", "CA that issues short-lived server certificates"),
    CsmsSetting("dns", "dns_names", "texts", "host names for tls_ca", reloads=True),
    CsmsSetting("client_trust", "client_trust", "text", "CA certificates of stations, in PEM", reloads=True),
    CsmsSetting("client_crl", "client_crls", "texts", "revocation lists about them, PEM or DER", reloads=True),
    CsmsSetting("issue", "issue_plans", "plans", "what signs CSRs, as a table: KIND = CA or CA:PROFILE"),
    CsmsSetting("issue_here", "issue_here", "flag", "sign in this process", default=False),
    CsmsSetting(
        "forward_secrecy_only",
        "forward_secrecy_only",
        "flag",
        "leave out the TLS_RSA suites",
        reloads=True,
        default=False,
    ),
    CsmsSetting("duplicate", "duplicate", "text", "newest or probe", reloads=True, default="newest"),
    CsmsSetting(
        "allow_unsecured",
        "allow_unsecured",
        "texts",
        "stations whose certificates and roots may be changed without TLS, as shell patterns",
        reloads=True,
    ),
    CsmsSetting("metrics_listen", "metrics_listen", "text", "address and port of /metrics, /healthz and /readyz"),
    CsmsSetting("upload_listen", "upload_listen", "text", "address and port for the logs that stations are asked for"),
    CsmsSetting("upload_url", "upload_url", "text", "how stations reach upload_listen"),
    CsmsSetting("behind_proxy", "behind_proxy", "texts", "addresses or networks of the TLS-terminating proxy"),
    CsmsSetting("proxy_secret", "proxy_secret_file", "secret", "what the proxy proves itself with; file or env"),
    CsmsSetting("ocsp_allow", "ocsp_allow", "texts", "responders and CRLs that may be asked, by URL"),
    CsmsSetting("ocsp_network", "ocsp_networks", "texts", "private ranges that they may be in"),
    CsmsSetting("status_trust", "status_trust", "text", "CA certificates of others whose answers are verified, in PEM"),
    CsmsSetting("contract_trust", "contract_trust", "text", "roots for contracts beside those on record, in PEM"),
    CsmsSetting("contract_sub_cas", "contract_sub_cas", "text", "sub-CAs below them, in PEM"),
    CsmsSetting(
        "contract_token_status",
        "contract_token_status",
        "text",
        "what contracts of others count as",
        default="Unknown",
    ),
    CsmsSetting("contract_ca", "contract_cas", "texts", "CAs that issue contracts for vehicles, one of each standard"),
    CsmsSetting("cps_ca", "cps_cas", "texts", "sub-CAs whose leaves sign the answers to vehicles"),
    CsmsSetting("cps_cert", "cps_certs", "texts", "chain of a provisioning service made elsewhere, in PEM"),
    CsmsSetting("cps_key", "cps_keys", "texts", "path of the key of the chain at the same place"),
    CsmsSetting(
        "exi_response_limit", "exi_response_limit", "whole", "characters of exiResponse before OCPP 2.1", default=5600
    ),
    CsmsSetting("log_json", "log_json", "flag", "log lines as JSON", default=False),
)
_BY_KEY: Final = MappingProxyType({setting.key: setting for setting in SETTINGS})
_LIMITS: Final = MappingProxyType({field.name: field for field in dataclasses.fields(CsmsLimits)})


def load_csms_settings(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return every option of ``csms serve``: what was given, then what the file says, then the default.

    Args:
        given: options by name; ``None``, an empty tuple and a flag that is off count as not given.

    Raises:
        InputError: the file; line and column are named.
        click.UsageError: neither says where to listen, or on which profile.
    """
    filed = _read(path)
    merged: dict[str, Any] = {"limits": filed.get("limits", CsmsLimits())}
    for setting in SETTINGS:
        value = given.get(setting.option)
        is_given = value not in (None, (), False)
        merged[setting.option] = value if is_given else filed.get(setting.option, setting.default)
        if merged[setting.option] is None and setting.kind in ("texts", "secrets", "plans"):
            merged[setting.option] = ()
    for option, flag in (("listen", "--listen"), ("profiles", "--security-profile")):
        if not merged[option]:
            raise click.UsageError(f"Missing option '{flag}' (or its key in [csms] of {path.name}).")
    return merged


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the keys whose change SIGHUP applies, and those that need a restart."""
    applied: list[str] = []
    restart: list[str] = []
    for setting in SETTINGS:
        if before[setting.option] != after[setting.option]:
            (applied if setting.reloads else restart).append(setting.key)
    if before["limits"] != after["limits"]:
        restart.append("limits")
    return applied, restart


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        text = files.read_limited(path, _MAX_CONFIG_BYTES, "configuration").decode()
        table = tomllib.loads(text).get("csms", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    return _Table(path, text).read(table)


class _Table:
    """Reads ``[csms]``; every complaint names its line and column."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._places = path, find_places(text)

    def read(self, table: object) -> dict[str, Any]:
        if not isinstance(table, dict):
            self._refuse(("csms",), "csms must be a table", "write [csms] on a line of its own")
        found: dict[str, Any] = {}
        for key, value in table.items():
            where: tuple[str | int, ...] = ("csms", key)
            if key == "limits":
                found["limits"] = self._limits(value)
                continue
            setting = _BY_KEY.get(key)
            if setting is None:
                self._unknown(where, key, [*_BY_KEY, "limits"])
            reader: Callable[[tuple[str | int, ...], Any], Any] = getattr(self, f"_{setting.kind}")
            found[setting.option] = reader(where, value)
        if found.get("duplicate") not in (None, "newest", "probe"):
            self._refuse(("csms", "duplicate"), 'duplicate must be "newest" or "probe"', "correct it")
        return found

    def _refuse(self, where: tuple[str | int, ...], what: str, fix: str) -> NoReturn:
        place = self._places.get(where, Place(1, 1))
        raise InputError(f"{self._path}, {place}: {what}", fix=fix)

    def _unknown(self, where: tuple[str | int, ...], key: str, known: list[str]) -> NoReturn:
        near = difflib.get_close_matches(key, known, n=2, cutoff=0.6)
        fix = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(known))}"
        self._refuse(where, f"unknown setting {key!r} in [csms]", fix)

    def _text(self, where: tuple[str | int, ...], value: object) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            self._refuse(where, f"{where[-1]} must be text", f'write {where[1]} = "…"')
        return value

    def _whole(self, where: tuple[str | int, ...], value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1000 <= value <= 7500:
            self._refuse(where, f"{where[-1]} must be a whole number from 1000 to 7500", f"write {where[-1]} = 7500")
        return value

    def _flag(self, where: tuple[str | int, ...], value: object) -> bool:
        if not isinstance(value, bool):
            self._refuse(where, f"{where[-1]} must be true or false", f"write {where[1]} = true")
        return value

    def _texts(self, where: tuple[str | int, ...], value: object) -> tuple[str, ...]:
        if isinstance(value, list):
            return tuple(self._text((*where, index), item) for index, item in enumerate(value))
        return (self._text(where, value),)

    def _profiles(self, where: tuple[str | int, ...], value: object) -> str:
        numbers = value if isinstance(value, list) else [value]
        if all(isinstance(number, int) and not isinstance(number, bool) for number in numbers) and numbers:
            return ",".join(str(number) for number in numbers)
        return self._text(where, value)

    def _plans(self, where: tuple[str | int, ...], value: object) -> tuple[str, ...]:
        if not isinstance(value, dict):
            self._refuse(where, "issue must be a table", 'write issue = {ChargingStationCertificate = "CA-NAME"}')
        return tuple(f"{kind}={self._text((*where, kind), target)}" for kind, target in value.items())

    def _secret(self, where: tuple[str | int, ...], value: object) -> Secret:
        if isinstance(value, dict) and len(value) == 1:
            ((source, target),) = value.items()
            if source in ("file", "env"):
                return Secret(**{source: self._text((*where, source), target)})
        # The value is not repeated: it may be the secret.
        return self._refuse(
            where, f"{where[1]} must say where the secret is", f'write {where[1]} = {{file = "…"}} or {{env = "…"}}'
        )

    def _secrets(self, where: tuple[str | int, ...], value: object) -> tuple[str | Secret, ...]:
        items = (
            [((*where, index), item) for index, item in enumerate(value)]
            if isinstance(value, list)
            else [(where, value)]
        )
        return tuple(
            self._secret(place, item) if isinstance(item, dict) else self._text(place, item) for place, item in items
        )

    def _limits(self, value: object) -> CsmsLimits:
        where: tuple[str | int, ...] = ("csms", "limits")
        if not isinstance(value, dict):
            self._refuse(where, "limits must be a table", "write [csms.limits] on a line of its own")
        limits: dict[str, Any] = {}
        for key, item in value.items():
            if key not in _LIMITS:
                self._unknown((*where, key), key, list(_LIMITS))
            limits[key] = self._limit((*where, key), item, is_duration=_LIMITS[key].type == "timedelta")
        return CsmsLimits(**limits)

    def _limit(self, where: tuple[str | int, ...], value: object, *, is_duration: bool) -> int | timedelta:
        if is_duration:
            try:
                return DURATION.convert(self._text(where, value), None, None)
            except click.BadParameter as error:
                self._refuse(where, error.message, 'write for example "30s"')
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._refuse(where, f"{where[-1]} must be a whole number above zero", f"write {where[-1]} = 100")
        return value
