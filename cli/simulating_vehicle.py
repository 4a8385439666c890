"""What ``station simulate`` is told about Plug & Charge: certificates, variables, roots, a driver, a vehicle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from chargepki.cli.stations import CERTIFICATE_USES
from chargepki.ocpp_security.station.device import check_variable
from chargepki.ocpp_security.station.driver import Contract, Token
from chargepki.ocpp_security.versions import OcppVersion
from chargepki.ocpp_security.wire import CertificateUse, supports_use
from chargepki.pki import files
from chargepki.pki.pem import pem_blocks

__all__ = ["VehiclePlan"]

_MAX_BYTES = 1 << 20
_ROOTS = ("v2g", "mo", "oem")


@dataclass(frozen=True, slots=True)
class VehiclePlan:
    """The options of Plug & Charge, read."""

    uses: frozenset[CertificateUse]
    variables: Mapping[str, str]
    roots: Mapping[str, bytes]
    driver: Contract | Token | None
    chain: tuple[bytes, ...]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> VehiclePlan:
        """Read them.

        Raises:
            click.UsageError: options that do not go together.
            InputError: a file that is none, or a variable that there is not.
        """
        uses = [CERTIFICATE_USES[name] for name in options["uses"]] or [CertificateUse.CHARGING_STATION]
        if CertificateUse.COMBINED in uses and len(uses) > 1:
            raise click.UsageError("a combined certificate takes the place of the others: pass --use combined alone")
        if options["contract"] and options["id_token"]:
            raise click.UsageError("a driver has a contract or a token: pass --contract or --id-token")
        return cls(
            frozenset(uses),
            dict(_variable(text) for text in options["variables"]),
            dict(_root(text) for text in options["roots"]),
            _driver(options),
            _certificates(options["vehicle_chain"], "vehicle chain") if options["vehicle_chain"] else (),
        )

    def uses_of(self, version: str) -> frozenset[CertificateUse]:
        """Return what a station of *version* enrols for: of a mixed fleet, what its version has."""
        found = frozenset(use for use in self.uses if supports_use(OcppVersion(version), use))
        return found or frozenset({CertificateUse.CHARGING_STATION})


def _driver(options: Mapping[str, Any]) -> Contract | Token | None:
    if options["id_token"]:
        return Token(options["id_token"])
    if not options["contract"]:
        return None
    pem = files.read_limited(options["contract"], _MAX_BYTES, "contract chain")
    return Contract.parse(pem, emaid=options["emaid"])


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--variable {text!r} is not NAME=VALUE")
    check_variable(name, value)
    return name, value


def _root(text: str) -> tuple[str, bytes]:
    use, equals, path = text.partition("=")
    if not equals or use not in _ROOTS:
        raise click.UsageError(f"--root {text!r} is not USE=FILE with USE one of {', '.join(_ROOTS)}")
    return use, files.read_limited(path, _MAX_BYTES, "root file")


def _certificates(path: str, what: str) -> tuple[bytes, ...]:
    data = files.read_limited(path, _MAX_BYTES, what)
    return tuple(block.der for block in pem_blocks(data, max_bytes=_MAX_BYTES) if block.label == "CERTIFICATE")
