"""A SoftHSM token with keys, for tests of what PKCS #11 reaches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.foreign import missing, run

__all__ = ["PIN", "Token", "borrowed_token", "make_token"]

PIN = "91827364"
_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
CURVES = {"ec256": "secp256r1", "ec384": "secp384r1"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token named HSM, with the keys that `make_token` was asked for."""

    folder: Path
    module: Path
    pin_file: Path

    @property
    def variables(self) -> Mapping[str, str]:
        """What a command needs to reach it."""
        return {"CHARGEPKI_PKCS11_MODULE": str(self.module), "CHARGEPKI_PKCS11_PIN_FILE": str(self.pin_file)}

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Take the token out while this lasts."""
        place, elsewhere = self.folder / "tokens", self.folder / "away"
        place.rename(elsewhere)
        place.mkdir()
        try:
            yield
        finally:
            place.rmdir()
            elsewhere.rename(place)

    def uri(self, label: str) -> str:
        """Return the URI of a key."""
        return f"pkcs11:token=HSM;object={label};type=private"


def make_token(folder: Path, labels: Sequence[str] = ("ec256", "ec384", "rsa")) -> Token:
    """Return a new token in *folder* with keys of these labels; skip, visibly, where there is no SoftHSM.

    Its configuration goes into the environment of this process: the module reads it when it is initialised.
    """
    module = next((Path(name) for name in _MODULES if Path(name).exists()), None)
    if (reason := missing("softhsm2-util", "softhsm2")) or module is None:
        pytest.skip(reason or "the module of SoftHSM was not found")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    done = run("softhsm2-util", "--init-token", "--free", "--label", "HSM", "--pin", PIN, "--so-pin", "0000")
    assert done.returncode == 0, done.stderr
    pin_file = folder / "pin"
    pin_file.write_text(f"{PIN}\n")
    pin_file.chmod(0o600)
    _make_keys(module, labels)
    return Token(folder, module, pin_file)


@contextlib.contextmanager
def borrowed_token(folder: Path, labels: Sequence[str] = ("ec256", "ec384", "rsa")) -> Iterator[Token]:
    """Lend a token of `make_token`, and leave the environment as it was."""
    before = os.environ.get("SOFTHSM2_CONF")
    yield make_token(folder, labels)
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


def _make_keys(module: Path, labels: Sequence[str]) -> None:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    library = pkcs11.lib(str(module))
    library.reinitialize()
    with library.get_token(token_label="HSM").open(rw=True, user_pin=PIN) as session:
        for label in labels:
            if label not in CURVES:
                session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label=label, id=b"\x01")
                continue
            parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(CURVES[label])}
            domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
            domain.generate_keypair(store=True, label=label, id=label.encode())
    library.finalize()
