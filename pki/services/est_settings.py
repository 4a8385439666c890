"""The labels of the EST server, from ``[est]`` of ``chargepki.toml``: which CA and profile each path stands for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from chargepki.pki.errors import ChargePkiError, InputError
from chargepki.pki.files import read_limited
from chargepki.pki.inventory import Inventory
from chargepki.pki.profiles import get_profile

__all__ = ["EstCa", "EstLabel", "EstSettings", "ServerKeys", "check_labels", "load_est_settings"]

_MAX_CONFIG_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The roles and versions that charging back ends write into the path (OPCP 1.0.0, EST operations).
_ALIAS: Final = re.compile(r"(cpo|mo|oem|cps|veh)/(ISO15118-2|ISO15118-20)(/(secp256r1|secp521r1|ed448))?")
_VERSIONS: Final = ("ISO15118-2", "ISO15118-20")
_OPERATIONS: Final = ("cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc")


class ServerKeys(StrEnum):
    """Whether a label makes keys for its clients (RFC 7030 4.4)."""

    OFF = "off"
    ENCRYPTED = "encrypted"
    """Only encrypted to the key of the client's TLS certificate, besides TLS."""
    TLS = "tls"
    """Protected by TLS alone where the client shows no certificate."""


@dataclass(frozen=True, slots=True)
class EstLabel:
    """What one path segment stands for."""

    name: str
    ca: str
    profile: str
    aliases: tuple[str, ...] = ()
    """``ROLE/VERSION`` of the path shapes that charging back ends call, for example ``cpo/ISO15118-2``.

    ``ROLE/VERSION/ALGORITHM`` goes before it for ``cacerts`` of that algorithm.
    """
    approval: bool = False
    """Whether a person decides on each new request; it is answered 202 until then."""
    server_keys: ServerKeys = ServerKeys.OFF
    subject_defaults: Mapping[str, str] = field(default_factory=dict)
    """Subject fields that a request leaves out: short name to value."""


@dataclass(frozen=True, slots=True)
class EstCa:
    """How a CA is reached that is not ours. Secrets stay in their files."""

    url: str
    cacerts_url: str | None = None
    """Where its CA certificates are, if not where the operation ``cacerts`` of *url* is."""
    trust: Path | None = None
    """PEM with the anchors of its TLS certificate; the system's otherwise."""
    user: str | None = None
    password_file: Path | None = None
    certificate: Path | None = None
    """TLS client certificate, PEM, leaf first."""
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class EstSettings:
    """All labels."""

    labels: tuple[EstLabel, ...] = ()
    default: str | None = None
    """Label of the paths without one, ``/.well-known/est/simpleenroll``."""
    cas: Mapping[str, EstCa] = field(default_factory=dict)
    """CAs that are not ours, by the name that orders use."""

    def find(self, name: str) -> EstLabel | None:
        """Return the label of this name."""
        return next((label for label in self.labels if label.name == name), None)

    def find_alias(self, role: str, version: str | None, algorithm: str | None = None) -> EstLabel | None:
        """Return the label of a charging back end's path; one without version means the older, if there is such."""
        for each in (version,) if version else _VERSIONS:
            for alias in (f"{role}/{each}/{algorithm}", f"{role}/{each}"):
                for label in self.labels:
                    if alias in label.aliases:
                        return label
        return None


def load_est_settings(path: Path) -> EstSettings:
    """Read the table ``[est]`` of *path*; no labels when there is no such file or table.

    Raises:
        InputError: not TOML, an unknown key, or a value that does not fit.
        UnavailableError: the file cannot be read.
    """
    if not path.exists():
        return EstSettings()
    data = read_limited(path, _MAX_CONFIG_BYTES, "configuration")
    try:
        table = tomllib.loads(data.decode()).get("est", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    table = _table(table, path, "est", ("label", "default", "ca"))
    labels = tuple(
        _label(name, each, path) for name, each in _table(table.get("label", {}), path, "est.label", None).items()
    )
    taken = [alias for label in labels for alias in label.aliases]
    for alias in taken:
        if taken.count(alias) > 1:
            raise InputError(f"{path}: two EST labels claim the path {alias}", fix="leave it with one of them")
    default = table.get("default")
    if default is not None and default not in [label.name for label in labels]:
        raise InputError(f"{path}: est.default names no label", fix="write the name of a table [est.label.NAME]")
    cas = {name: _ca(name, each, path) for name, each in _table(table.get("ca", {}), path, "est.ca", None).items()}
    return EstSettings(labels, default, cas)


def check_labels(settings: EstSettings, inventory: Inventory) -> None:
    """Refuse labels whose CA is not there; asked once when a server starts.

    Raises:
        InputError: names the label.
    """
    for label in settings.labels:
        if inventory.find_ca(label.ca) is None:
            raise InputError(
                f"the EST label {label.name} names the CA {label.ca}, which is not there",
                fix="correct est.label in chargepki.toml; list the CAs with: chargepki ca list",
            )


def _label(name: str, value: object, path: Path) -> EstLabel:
    where = f"est.label.{name}"
    if not _NAME.fullmatch(name) or name in _OPERATIONS:
        raise InputError(f"{path}: {name!r} cannot be an EST label", why="it stands in the path of URLs")
    known = ("ca", "profile", "aliases", "approval", "server_keys", "subject_defaults")
    table = _table(value, path, where, known)
    for key in ("ca", "profile"):
        if not isinstance(table.get(key), str):
            raise InputError(f"{path}: {where}.{key} must be text", fix=f'write {key} = "…" below [{where}]')
    try:
        profile = get_profile(table["profile"])
    except ChargePkiError as error:
        raise InputError(f"{path}: {where}: {error.what}", fix=error.fix) from error
    if profile.is_ca:
        raise InputError(
            f"{path}: {where} has the profile of a CA",
            why="CA certificates are made by an operator at the authority, never over the network",
        )
    aliases = table.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(each, str) and _ALIAS.fullmatch(each) for each in aliases):
        raise InputError(
            f"{path}: {where}.aliases must be a list of ROLE/VERSION or ROLE/VERSION/ALGORITHM",
            why="ROLE is cpo, mo, oem, cps or veh; VERSION ISO15118-2 or ISO15118-20; ALGORITHM secp256r1, secp521r1 or"
            " ed448",
            fix='for example aliases = ["cpo/ISO15118-2"]',
        )
    approval = table.get("approval", False)
    if not isinstance(approval, bool):
        raise InputError(f"{path}: {where}.approval must be true or false")
    server_keys = table.get("server_keys", "off")
    if server_keys not in list(ServerKeys):
        raise InputError(f"{path}: {where}.server_keys must be one of {', '.join(ServerKeys)}")
    defaults = _table(table.get("subject_defaults", {}), path, f"{where}.subject_defaults", None)
    if not all(isinstance(each, str) for each in defaults.values()):
        raise InputError(f"{path}: {where}.subject_defaults holds text only", fix='for example {O = "Example CSO"}')
    return EstLabel(name, table["ca"], profile.id, tuple(aliases), approval, ServerKeys(server_keys), dict(defaults))


def _ca(name: str, value: object, path: Path) -> EstCa:
    where = f"est.ca.{name}"
    known = ("url", "cacerts_url", "trust", "user", "password_file", "certificate", "key")
    table = _table(value, path, where, known)
    for key, each in table.items():
        if not isinstance(each, str) or not each:
            raise InputError(f"{path}: {where}.{key} must be text", fix=f'write {key} = "…" below [{where}]')
    if "url" not in table:
        raise InputError(f"{path}: {where} has no url", fix='write url = "https://HOST/.well-known/est/LABEL"')
    for one, other in (("user", "password_file"), ("certificate", "key")):
        if (one in table) != (other in table):
            raise InputError(f"{path}: {where} has only one of {one} and {other}", fix="they belong together")
    # Relative names are those of files beside the configuration.
    files = {key: path.parent / table[key] for key in ("trust", "password_file", "certificate", "key") if key in table}
    return EstCa(url=table["url"], cacerts_url=table.get("cacerts_url"), user=table.get("user"), **files)


def _table(value: object, path: Path, where: str, known: tuple[str, ...] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {where} must be a table", fix=f"write [{where}]")
    unknown = sorted(set(value) - set(known)) if known is not None else []
    if unknown:
        raise InputError(
            f"{path}: unknown setting {where}.{unknown[0]}",
            why=f"known are {', '.join(known or ())}",
            fix="correct its name",
        )
    return value
