"""Chains that differ in how their CA came to be, before the judges: imported, offline, in a token, cross-signed.

Profiles and standards are in test_profiles_foreign.py, generations of a root in test_cross_foreign.py. Of every chain
it is asked whether it is accepted, also with the lists of its issuers, refused once its leaf is revoked, and refused
when the certificate above the leaf is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from chargepki.pki.names import parse_rdns
from testkit.command_line import CommandLine
from testkit.foreign import (
    ChainCase,
    Tool,
    Verdict,
    judge_by_nss,
    judge_by_strongswan,
    judge_chains,
    missing,
    need,
    run,
)
from testkit.requests import make_csr
from testkit.tokens import make_token

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(180)]

CLIENT = "1.3.6.1.5.5.7.3.2"
STATION = "ocpp/charging-station"
KINDS = ("imported", "offline", "token", "crossed", "crossed-back")


@dataclass(frozen=True, slots=True)
class Chain:
    """A leaf that is good and one that was revoked, what is between them and the root, and all lists."""

    kind: str
    good: bytes
    revoked: bytes
    path: tuple[bytes, ...]
    root: bytes
    lists: tuple[bytes, ...]

    def cases(self) -> list[ChainCase]:
        good, gone = (self.good, *self.path), (self.revoked, *self.path)
        return [
            ChainCase(f"{self.kind}|valid", good, self.root, None, CLIENT),
            ChainCase(f"{self.kind}|valid with lists", good, self.root, self.lists, CLIENT),
            ChainCase(f"{self.kind}|revoked", gone, self.root, self.lists, CLIENT),
            ChainCase(f"{self.kind}|cut", (self.good, *self.path[1:]), self.root, None, CLIENT),
        ]


class Maker:
    """Makes the chains with commands, in one workspace; an offline root has another one."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.home = folder, CommandLine(folder / "home", variables)
        self.offline = CommandLine(folder / "offline", variables)

    def file(self, name: str) -> Path:
        return self.folder / name

    def sub(self, name: str, root: str) -> None:
        words = ("--profile", "ocpp/cso-sub", "--issuer", root, "--subject", f"CN={name},O=Acme,C=DE")
        self.home("ca", "create", name, *words)

    def leaves(self, sub: str) -> tuple[bytes, bytes]:
        """Issue two and revoke the second."""
        found = []
        for number in (1, 2):
            csr, out = self.file(f"{sub}{number}.csr"), self.file(f"{sub}{number}.pem")
            csr.write_bytes(make_csr(parse_rdns(f"CN=CS-{sub}-{number},O=Acme")))
            self.home("cert", "issue", "--ca", sub, "--profile", STATION, "--csr", csr, "--out", out)
            found.append(read(out)[0])
        self.home("cert", "revoke", self.file(f"{sub}2.pem"), "--reason", "superseded")
        return found[0], found[1]

    def list_of(self, ca: str) -> bytes:
        out = self.file(f"{ca}.crl")
        self.home("crl", "publish", "--ca", ca, "--out", out)
        return out.read_bytes()

    def chain(self, kind: str, sub: str, root: str, leaves: tuple[bytes, bytes], *lists: bytes) -> Chain:
        """Return the chain from *sub* to *root*, as `ca chain --anchor` gives it."""
        anchor, out = self.file(f"{root}.pem"), self.file(f"chain-{kind}.pem")
        self.home("ca", "chain", root, "--out", anchor)
        self.home("ca", "chain", sub, "--anchor", anchor, "--out", out)
        return Chain(kind, *leaves, tuple(read(out)), read(anchor)[0], lists)


def read(path: Path) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(path.read_bytes())]


def imported(make: Maker) -> Chain:
    folder = make.file("old")
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / "ca.key")
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    more = [word for each in extensions for word in ("-addext", each)]
    subject = ("-days", "3000", "-subj", "/C=DE/O=Acme/CN=Old")
    done = run("openssl", "req", "-x509", *key, "-out", folder / "ca.pem", *subject, *more)
    assert done.returncode == 0, done.stderr
    make.home("ca", "import", "old", folder, "--profile", "ocpp/cso-root")
    make.sub("old-sub", "old")
    return make.chain(
        "imported", "old-sub", "old", make.leaves("old-sub"), make.list_of("old-sub"), make.list_of("old")
    )


def offline(make: Maker) -> Chain:
    request, answer, crl = (make.file(name) for name in ("request.json", "answer.json", "r.crl"))
    make.offline("ca", "create", "r", "--profile", "ocpp/cso-root", "--subject", "CN=Safe,O=Acme,C=DE")
    make.home(
        "ca", "request", "r-sub", "--profile", "ocpp/cso-sub", "--subject", "CN=R Sub,O=Acme,C=DE", "--out", request
    )
    row = make.offline("ca", "sign-request", request, "--issuer", "r", "--out", answer, "--json").json()
    make.home("ca", "accept", answer, "--root-sha256", row["root_sha256"])
    make.offline("crl", "publish", "--ca", "r", "--validity", "180d", "--out", crl)
    make.home("crl", "import", crl)
    return make.chain("offline", "r-sub", "r", make.leaves("r-sub"), make.list_of("r-sub"), crl.read_bytes())


def in_a_token(make: Maker, uri: str) -> Chain:
    words = ("--profile", "ocpp/cso-root", "--subject", "CN=Token,O=Acme,C=DE", "--key-uri", uri)
    make.home("ca", "create", "token", *words)
    make.sub("token-sub", "token")
    leaves = make.leaves("token-sub")
    return make.chain("token", "token-sub", "token", leaves, make.list_of("token-sub"), make.list_of("token"))


def crossed(make: Maker) -> Iterator[Chain]:
    """Yield a leaf of either of two roots that certified each other, below the other one."""
    for name in ("one", "two"):
        make.home("ca", "create", name, "--profile", "ocpp/cso-root", "--subject", f"CN=Root {name},O=Acme,C=DE")
        make.sub(f"{name}-sub", name)
    make.home("ca", "cross-sign", "one", "--issuer", "two")
    make.home("ca", "cross-sign", "two", "--issuer", "one")
    for kind, own, other in (("crossed", "one", "two"), ("crossed-back", "two", "one")):
        leaves = make.leaves(f"{own}-sub")
        lists = [make.list_of(each) for each in (f"{own}-sub", own, other)]
        yield make.chain(kind, f"{own}-sub", other, leaves, *lists)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chain, ...]]:
    if reason := missing("softhsm2-util", "softhsm2") or missing("openssl", "openssl"):
        pytest.skip(reason)
    folder, before = tmp_path_factory.mktemp("kinds"), os.environ.get("SOFTHSM2_CONF")
    (folder / "passphrase").write_bytes(b"correct horse")
    (folder / "passphrase").chmod(0o600)
    token = make_token(tmp_path_factory.mktemp("token"))
    variables = {"CHARGEPKI_PASSPHRASE_FILE": str(folder / "passphrase"), "CHARGEPKI_PUBLIC_URL": "http://pki.test"}
    make = Maker(folder, {**token.variables, **variables})
    found = [imported(make), offline(make), in_a_token(make, token.uri("ec256")), *crossed(make)]
    yield tuple(found)
    os.environ.pop("SOFTHSM2_CONF")
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


def judge(who: str, chains: tuple[Chain, ...]) -> dict[str, Verdict]:
    cases = [case for chain in chains for case in chain.cases()]
    if who == "strongswan":
        return judge_by_strongswan(cases)
    if who == "nss":
        # Its certutil takes no list for one question.
        return judge_by_nss([case for case in cases if case.crls is None])
    need(Tool(who))
    return judge_chains(Tool(who), cases)


CI = ("openssl", "gnutls")
JUDGES = [
    pytest.param(each, marks=() if each in CI else pytest.mark.campaign)
    for each in (*CI, "openssl-strict", "java", "pyhanko", "strongswan", "nss")
]


@pytest.mark.parametrize("who", JUDGES)
def test_each_kind_of_chain_is_judged_as_it_should(who: str, chains: tuple[Chain, ...]) -> None:
    assert tuple(each.kind for each in chains) == KINDS
    verdicts = judge(who, chains)
    wrong = {name: each for name, each in verdicts.items() if each.accepted is not ("|valid" in name)}
    assert not wrong, wrong
    assert all("revoked" in each.reason.lower() for name, each in verdicts.items() if name.endswith("|revoked"))
