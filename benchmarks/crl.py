"""What does a revocation list of 100,000 entries cost, and one more revocation, against ``openssl ca -gencrl``?

Our side opens the database, joins, signs and lints the list, records it with its audit entry, and returns when the
file is on disk. The key is open on both sides: ours was decrypted before, that of openssl is not encrypted. openssl
reads its text database, signs and writes, without lint, log and fsync. When cfssl is there, it gets the same serials.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.harness import Case, Comparison, Limit, compare, main
from benchmarks.issuance import orders_of
from benchmarks.material import ACTOR, make_authority, make_request
from chargepki.pki.authority import Authority, IssuedCertificate, utc_now
from chargepki.pki.crl import parse_crl
from chargepki.pki.der import to_pem
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.signer import Signer

ENTRIES = 100_000
MORE = 400
"""Certificates that are there to be revoked one by one."""
SHARD = 750
URL = "http://pki.example.org"
_OPENSSL = """[ca]
default_ca = list
[list]
database = {folder}/index.txt
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_crl_days = 7
crlnumber = {folder}/number
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid
"""


class OpenKey:
    """A key store whose one key is open."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer

    def uri(self, label: str) -> str:
        return f"file:{label}.key"

    def exists(self, label: str) -> bool:
        return self.uri(label) == self.signer.uri

    def create(self, label: str, algorithm: object) -> str:
        raise StateError(f"no key {label} for {algorithm} is made here", why="the benchmark has one key, which is open")

    def open(self, uri: str) -> Signer:
        assert uri == self.signer.uri
        return self.signer


class Place:
    """A workspace with a CA that has revoked 100,000 certificates."""

    def __init__(self, folder: Path, *, sharded: bool) -> None:
        self.folder = folder
        folder.mkdir()
        authority = make_authority(folder)
        (made,) = authority.issue_many(orders_of([make_request("STATION-0001")]))
        assert isinstance(made, IssuedCertificate), made
        self.key = OpenKey(authority.open_issuer("sub").signer)
        self.ca_der = authority.inventory.get_ca("sub").certificate_der or b""
        authority.inventory.close()
        self.serials = [f"{secrets.randbits(158) | 1 << 158:x}" for _ in range(ENTRIES + MORE)]
        self._fill(sharded=sharded)
        with_entries = self.open()
        assert with_entries.repair_entries("sub") == ENTRIES
        with_entries.inventory.close()

    def _fill(self, *, sharded: bool) -> None:
        """Copy the row of the one certificate, which takes a second; issuing them all would take minutes."""
        connection = sqlite3.connect(self.folder / "inventory.db")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(certificate)")]
        found = connection.execute("SELECT * FROM certificate WHERE state = 'issued' AND profile LIKE '%station'")
        row = dict(zip(columns, found.fetchone(), strict=True))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        rows = []
        for number, serial in enumerate(self.serials):
            gone = number < ENTRIES
            rows.append(
                {
                    **row,
                    "id": f"sub@1:{serial}",
                    "serial": serial,
                    "request_key": serial,
                    "sha256": serial,
                    "state": "revoked" if gone else "issued",
                    "revoked_at": now if gone else None,
                    "revocation_reason": ("keyCompromise" if number % 2 else "superseded") if gone else None,
                    "shard": number // SHARD + 1 if sharded else None,
                }
            )
        names = ", ".join(columns)
        connection.executemany(
            f"INSERT INTO certificate ({names}) VALUES ({', '.join(':' + name for name in columns)})",  # our own names
            rows,
        )
        if sharded:
            connection.execute(f"UPDATE ca SET crl_shard_size = {SHARD} WHERE id = 'sub@1'")
            shards = range(1, (len(self.serials) - 1) // SHARD + 2)
            connection.executemany(
                "INSERT INTO crl_shard (id, ca, number, base_url, url, opened_at) VALUES (?, 'sub@1', ?, ?, ?, ?)",
                [(f"sub@1/{number}", number, URL, f"{URL}/crl/sub@1/{number}.crl", now) for number in shards],
            )
        connection.commit()
        connection.close()

    def open(self) -> Authority:
        """Open the database, as a process that starts does."""
        inventory = Inventory.open(
            f"sqlite:///{self.folder / 'inventory.db'}", log_key=AuditKey.load(self.folder / "audit.key")
        )
        return Authority(inventory, self.key, actor=ACTOR, publish_folder=self.folder / "www")

    @property
    def list_path(self) -> Path:
        """Where the full list is served from."""
        return self.folder / "www" / "crl" / "sub@1.crl"


def publish(place: Place) -> Callable[[], None]:
    """Return what opens the database and publishes the list."""

    def run() -> None:
        authority = place.open()
        assert authority.publish_crl("sub").entries == ENTRIES
        authority.inventory.close()

    return run


def revoke_one_more(place: Place) -> Callable[[], None]:
    """Return what revokes one certificate and returns when its shard and the full list tell of it on disk."""
    authority = place.open()
    authority.publish_crl("sub")
    left = iter(place.serials[ENTRIES:])

    def run() -> None:
        authority.revoke(f"sub@1:{next(left)}", "superseded")
        published = authority.publish_due("sub")
        assert published.full is not None and len(published.shards) == 1

    return run


def by_openssl(place: Place, folder: Path) -> Callable[[], None]:
    """Return what has openssl make a list of the same certificates."""
    folder.mkdir()
    key = place.key.signer
    (folder / "ca.pem").write_text(to_pem("CERTIFICATE", place.ca_der), encoding="ascii")
    (folder / "ca.key").write_bytes(_private_key(place, key.uri))
    (folder / "number").write_text("1000\n", encoding="ascii")
    now, end = utc_now(), utc_now() + timedelta(days=365)
    lines = [
        f"R\t{end:%y%m%d%H%M%S}Z\t{now:%y%m%d%H%M%S}Z,{'keyCompromise' if number % 2 else 'superseded'}"
        f"\t{serial.upper().zfill(len(serial) + len(serial) % 2)}\tunknown\t/CN=S{number}\n"
        for number, serial in enumerate(place.serials[:ENTRIES])
    ]
    (folder / "index.txt").write_text("".join(lines), encoding="ascii")
    (folder / "ca.cnf").write_text(_OPENSSL.format(folder=folder), encoding="utf-8")
    command = ["openssl", "ca", "-gencrl", "-config", str(folder / "ca.cnf"), "-out", str(folder / "list.pem")]

    def run() -> None:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run()
    assert len(parse_crl((folder / "list.pem").read_bytes()).entries) == ENTRIES
    return run


def by_cfssl(place: Place, folder: Path) -> Callable[[], None]:
    """Return what has cfssl make a list of the same serials, without reasons, which it does not know."""
    serials = folder / "serials.txt"
    serials.write_text("".join(f"{int(serial, 16)}\n" for serial in place.serials[:ENTRIES]), encoding="ascii")
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    plain = folder / "sec1.key"
    form = serialization.PrivateFormat.TraditionalOpenSSL
    plain.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    command = ["cfssl", "gencrl", str(serials), str(folder / "ca.pem"), str(plain)]

    def run() -> None:
        done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        # It prints base64, and goes on without an error when it could not read the key.
        assert len(done.stdout) > ENTRIES * 40, done.stderr[-300:]

    return run


def _private_key(place: Place, uri: str) -> bytes:
    name = uri.removeprefix("file:")
    key = serialization.load_pem_private_key((place.folder / "keys" / name).read_bytes(), b"benchmark")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def measure() -> Sequence[Comparison]:
    """Compare both acts with openssl, and the first with cfssl where it is installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = Place(folder / "full", sharded=False)
        reference = Case("openssl ca -gencrl", by_openssl(place, folder / "openssl"))
        ours = Case("publish_crl", publish(place))
        why = "a list of 100,000 is signed in a fraction of what openssl takes, or nobody renews it at each revocation"
        question = f"a CRL of {ENTRIES:,} entries, from opening the database to the fsynced file"
        found = [
            compare(question, subject=ours, reference=reference, limit=Limit(0.2, why), rounds=5),
        ]
        if shutil.which("cfssl"):
            cfssl = Case("cfssl gencrl, no reasons", by_cfssl(place, folder / "openssl"))
            found.append(compare(question, subject=ours, reference=cfssl, rounds=3))
        sharded = Place(folder / "sharded", sharded=True)
        found.append(
            compare(
                f"one more revocation of {ENTRIES:,} published in shards: revoke, sign the shard and the full list",
                subject=Case("revoke and publish_due", revoke_one_more(sharded)),
                reference=reference,
                limit=Limit(0.1, "a revocation is served at once, however long the list is"),
                rounds=5,
            )
        )
        return found


if __name__ == "__main__":
    raise SystemExit(main("crl", measure))
