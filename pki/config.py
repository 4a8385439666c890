"""The settings of a workspace, and for each the place that decided it: flag, environment, file or default."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from chargepki.pki.errors import InputError, UnavailableError, printable, reading_configuration

__all__ = ["CONFIG_FILE", "SETTINGS", "Origin", "Setting", "Settings", "load_settings"]

CONFIG_FILE = "chargepki.toml"
_MAX_CONFIG_BYTES = 1 << 20


class Origin(StrEnum):
    """Who decided a setting; in falling order of precedence."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the file, its flag, its variable and what it means."""

    name: str
    flag: str
    variable: str
    meaning: str


SETTINGS: tuple[Setting, ...] = (
    Setting("home", "--home", "CHARGEPKI_HOME", "workspace folder: key files and configuration"),
    Setting("database", "--database", "CHARGEPKI_DATABASE", "inventory database, a SQLAlchemy URL"),
    Setting(
        "passphrase_file", "--passphrase-file", "CHARGEPKI_PASSPHRASE_FILE", "passphrase of the software keys, or -"
    ),
    Setting("public_url", "--public-url", "CHARGEPKI_PUBLIC_URL", "base of the URLs written into certificates"),
    Setting("publish_dir", "--publish-dir", "CHARGEPKI_PUBLISH_DIR", "folder for CRLs and CA certificates as files"),
    # No flags: it has to be the same for every process that signs lists.
    Setting("crl_generations", "", "CHARGEPKI_CRL_GENERATIONS", "whose revocations the list of a rolled-over CA names"),
    # No flags: what reaches a key is set up once, not typed.
    Setting("pkcs11_module", "", "CHARGEPKI_PKCS11_MODULE", "driver of the tokens that hold pkcs11: keys"),
    Setting("key_token", "", "CHARGEPKI_KEY_TOKEN", "token in which new CA keys are made, a pkcs11: URI"),
    Setting("pkcs11_pin_file", "", "CHARGEPKI_PKCS11_PIN_FILE", "PIN of the token, where a URI names no pin-source"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything is. Paths are absolute."""

    home: Path
    database: str
    passphrase_file: str | None
    public_url: str | None
    publish_dir: Path | None
    origins: Mapping[str, Origin]
    pkcs11_module: Path | None = None
    pkcs11_pin_file: Path | None = None
    key_token: str | None = None
    crl_generations: str = "all"


@reading_configuration()
def load_settings(flags: Mapping[str, str | None], environ: Mapping[str, str], *, default_home: Path) -> Settings:
    """Merge *flags*, the environment, the workspace's ``chargepki.toml`` and the defaults.

    Args:
        flags: by setting name; ``None`` or absent means not given.
        environ: the process environment; an empty variable counts as not set.

    Raises:
        FaultyConfiguration: a value or the file is malformed; the file's line is named.
    """
    origins: dict[str, Origin] = {}

    def pick(setting: Setting, filed: Mapping[str, str]) -> str | None:
        for origin, value in (
            (Origin.FLAG, flags.get(setting.name)),
            (Origin.ENVIRONMENT, environ.get(setting.variable) or None),
            (Origin.FILE, filed.get(setting.name)),
        ):
            if value == "":
                # `--database "$UNSET"` must not silently mean another database.
                name = setting.flag if origin is Origin.FLAG else f"{setting.name} in {CONFIG_FILE}"
                raise InputError(f"{name} is empty", fix="give it a value, or leave it out")
            if value is not None:
                origins[setting.name] = origin
                return value
        origins[setting.name] = Origin.DEFAULT
        return None

    home_text = pick(SETTINGS[0], {})
    home = Path(home_text).expanduser().absolute() if home_text else default_home
    filed = read_config_file(home / CONFIG_FILE)
    values = {setting.name: pick(setting, filed) for setting in SETTINGS[1:]}
    return Settings(
        home=home,
        database=values["database"] or f"sqlite:///{home / 'inventory.db'}",
        passphrase_file=values["passphrase_file"],
        public_url=_checked_url(values["public_url"]),
        publish_dir=_path(values["publish_dir"]),
        origins=origins,
        pkcs11_module=_path(values["pkcs11_module"]),
        pkcs11_pin_file=_path(values["pkcs11_pin_file"]),
        key_token=values["key_token"],
        crl_generations=_generations(values["crl_generations"]),
    )


def _generations(value: str | None) -> str:
    if value not in (None, "all", "own"):
        raise InputError(
            f"crl_generations is {printable(value[:40])!r}",
            why="the full list of a CA that was rolled over names what all of its generations revoked, or its own",
            fix="say all (the default), or own",
        )
    return value or "all"


def _path(value: str | None) -> Path | None:
    return Path(value).expanduser().absolute() if value else None


def read_config_file(path: Path) -> Mapping[str, str]:
    """Return the settings of *path*; empty when there is no such file.

    Raises:
        InputError: no TOML, an unknown key or a value that is no text.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UnavailableError(f"cannot read {path}", why=str(error.strerror), fix="check its permissions") from error
    if len(data) > _MAX_CONFIG_BYTES:
        raise InputError(f"{path} is larger than 1 MiB", fix="it is not a configuration file of chargepki")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML", why=str(error), fix="correct the line that is named") from error
    known = {setting.name for setting in SETTINGS[1:]}
    # The linter reads its own tables (`chargepki.pki.lint.settings`).
    table.pop("lint", None)
    # So does the request policy (`chargepki.pki.policy_settings`).
    table.pop("policy", None)
    # So do the alerts (`chargepki.ocpp_security.alert_settings`).
    table.pop("alerts", None)
    # So does `csms serve` (`chargepki.cli.csms_settings`).
    table.pop("csms", None)
    # And the EST server its own (`chargepki.pki.services.est_settings`).
    table.pop("est", None)
    # And the four-eyes rule (`chargepki.pki.authority.approvals`).
    table.pop("approvals", None)
    for key, value in table.items():
        if key not in known:
            raise InputError(
                f"{path}: unknown setting {key!r}", why=f"known are {', '.join(sorted(known))}", fix="correct its name"
            )
        if not isinstance(value, str):
            raise InputError(f"{path}: {key} must be text", fix=f'write {key} = "…"')
        if not value.isprintable():
            raise InputError(f"{path}: {key} holds control characters", fix="write it as plain text")
    return table


def _checked_url(url: str | None) -> str | None:
    # Imported here: most commands write no URL, and this pulls in the profiles.
    from chargepki.pki.pointers import check_public_url

    return None if url is None else check_public_url(url)
