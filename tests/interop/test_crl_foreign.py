"""Shards, deltas and a list of 100,000 entries before tools that are not ours."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chargepki.pki import keys
from chargepki.pki.authority import IssuedCertificate, IssueOrder, utc_now
from chargepki.pki.authority.shards import CrlSettings
from chargepki.pki.crl import assemble_crl, build_crl_tbs
from chargepki.pki.crl_entry import ReasonCode, RevokedEntry, encode_entry
from chargepki.pki.der import to_pem
from chargepki.pki.keys import KeyAlgorithm
from testkit.authorities import MemoryKeyStore, make_authority, make_csr, ocpp_authority, open_inventory
from testkit.foreign import ChainCase, CrlCase, Tool, judge_chains, judge_crls, missing, need, run

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(180)]

ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What a CA with shards and deltas publishes, one leaf revoked, one on hold, one released, one good."""

    folder: Path
    root: bytes
    sub: bytes
    root_list: bytes
    good: IssuedCertificate
    revoked: IssuedCertificate
    elsewhere: IssuedCertificate
    """Revoked; its shard is another one."""
    released: IssuedCertificate
    before: bytes
    """The full list when `released` was on hold and nothing else had happened."""
    full: bytes
    delta: bytes
    shard: bytes
    """The shard of `good`, `revoked` and `released`."""

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def pem(self, name: str, label: str, *blocks: bytes) -> Path:
        return self.write(name, "".join(to_pem(label, der) for der in blocks).encode())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder, keystore = tmp_path_factory.mktemp("scene"), MemoryKeyStore()
    inventory = open_inventory(f"sqlite:///{folder / 'inventory.db'}", folder)
    # The tools know no other clock than the machine's; nothing may lie in its future.
    now = utc_now() - timedelta(minutes=2)
    ocpp_authority(inventory, keystore=keystore, clock=lambda: now)
    authority = make_authority(inventory, keystore=keystore, clock=lambda: now)
    authority.configure_crls("t-sub", CrlSettings(3, 24))
    orders = [IssueOrder("t-sub", "ocpp/charging-station", csr=make_csr(f"CS-{n}")) for n in range(4)]
    made = [answer for answer in authority.issue_many(orders) if isinstance(answer, IssuedCertificate)]
    good, revoked, released, elsewhere = made
    authority.revoke(released.record.id, "certificateHold")
    before = authority.publish_crl("t-sub").der
    authority.release(released.record.id)
    for issued in (revoked, elsewhere):
        authority.revoke(issued.record.id, "keyCompromise", invalidity_date=now - timedelta(days=1))
    published = authority.publish_lists("t-sub")
    assert published.full is not None and published.delta is not None
    root, sub = (inventory.get_ca(name).certificate_der for name in ("t-root", "t-sub"))
    assert root is not None and sub is not None
    root_list = authority.publish_crl("t-root").der
    inventory.close()
    return Scene(
        tmp_path_factory.mktemp("files"), root, sub, root_list, good, revoked, elsewhere, released,
        before, published.full.der, published.delta.der, published.shards[0].der,
    )  # fmt: skip


def chain_case(scene: Scene, name: str, issued: IssuedCertificate, *lists: bytes) -> ChainCase:
    return ChainCase(name, issued.chain, scene.root, (scene.root_list, *lists))


@pytest.mark.parametrize("tool", [Tool.OPENSSL, Tool.OPENSSL_STRICT, Tool.GNUTLS, Tool.JAVA])
def test_a_shard_decides_about_its_certificates(tool: Tool, scene: Scene) -> None:
    need(tool)
    cases = [
        chain_case(scene, "good", scene.good, scene.shard),
        chain_case(scene, "released", scene.released, scene.shard),
        chain_case(scene, "revoked", scene.revoked, scene.shard),
        chain_case(scene, "another shard's", scene.elsewhere, scene.shard),
        chain_case(scene, "another shard's, full list", scene.elsewhere, scene.full),
        chain_case(scene, "good, full list", scene.good, scene.full),
    ]
    verdicts = judge_chains(tool, cases)
    accepted = {name for name, verdict in verdicts.items() if verdict.accepted}
    expected = {"good", "released", "good, full list"}
    if tool is Tool.GNUTLS:
        # It takes any list of the issuer for the whole truth, whatever distribution point the list names.
        expected |= {"another shard's"}
    assert accepted == expected, verdicts
    assert "revoked" in verdicts["revoked"].reason.lower()


@pytest.mark.parametrize("tool", [Tool.OPENSSL, Tool.GNUTLS, Tool.JAVA, Tool.PYHANKO])
def test_the_signature_of_a_shard_and_of_a_delta_verifies(tool: Tool, scene: Scene) -> None:
    need(tool)
    chain = (scene.sub, scene.root)
    cases = [CrlCase("shard", scene.shard, chain), CrlCase("delta", scene.delta, chain)]
    verdicts = judge_crls(tool, cases)
    assert all(verdict.accepted for verdict in verdicts.values()), verdicts


@pytest.mark.parametrize(
    ("who", "lists", "accepted"),
    [
        ("released", ("before",), False),
        ("released", ("before", "delta"), True),
        ("revoked", ("before",), True),
        ("revoked", ("before", "delta"), False),
        ("good", ("before", "delta"), True),
        ("revoked", ("full", "delta"), False),
    ],
)
def test_openssl_brings_an_older_list_up_to_date_with_the_delta(
    scene: Scene, who: str, lists: tuple[str, ...], accepted: bool
) -> None:
    need(Tool.OPENSSL)
    issued: IssuedCertificate = getattr(scene, who)
    crls = scene.pem("lists.pem", "X509 CRL", *(getattr(scene, name) for name in lists))
    root = scene.pem("root.pem", "CERTIFICATE", scene.root)
    sub = scene.pem("sub.pem", "CERTIFICATE", scene.sub)
    done = run(
        "openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", root, "-untrusted", sub, "-crl_check",
        "-extended_crl", "-use_deltas", "-CRLfile", crls, scene.pem("leaf.pem", "CERTIFICATE", issued.chain[0]),
    )  # fmt: skip
    assert (done.returncode == 0) is accepted, done.stderr
    assert accepted or "certificate revoked" in done.stderr


def test_strongswan_reads_a_shard_and_refuses_whom_it_lists(scene: Scene) -> None:
    if reason := missing("pki", "strongswan-pki"):
        pytest.skip(reason)
    shard = scene.write("shard.crl", scene.shard)
    printed = run("pki", "--print", "--type", "crl", "--in", shard)
    assert printed.returncode == 0 and colons(scene.revoked) in printed.stdout, printed
    root, sub = scene.write("root.der", scene.root), scene.write("sub.der", scene.sub)
    if run("pki", "--print", "--type", "x509", "--in", root).returncode != 0:
        pytest.skip("strongSwan has no plugin for EC keys; on Debian: apt-get install libstrongswan-standard-plugins")
    for issued, good in ((scene.good, True), (scene.revoked, False)):
        leaf = scene.write("leaf.der", issued.chain[0])
        done = run("pki", "--verify", "--in", leaf, "--cacert", root, "--cacert", sub, "--crl", shard)
        assert (done.returncode == 0) is good, done
        assert good or "revoked" in done.stdout + done.stderr


def test_nss_shows_a_shard_and_keeps_the_full_list(scene: Scene) -> None:
    if reason := missing("crlutil", "libnss3-tools"):
        pytest.skip(reason)
    store = scene.folder / "nss"
    store.mkdir()
    database = f"sql:{store}"
    run("certutil", "-N", "-d", database, "--empty-password")
    for name, der in (("root", scene.root), ("sub", scene.sub)):
        file = scene.write(f"{name}.der", der)
        assert run("certutil", "-A", "-d", database, "-n", name, "-t", "CT,,", "-i", file).returncode == 0
    shard, full = scene.write("shard.crl", scene.shard), scene.write("full.crl", scene.full)
    shown = run("nss-pp", "-t", "crl", "-i", shard)
    assert colons(scene.revoked) in _squeezed(shown.stdout) and colons(scene.good) not in _squeezed(shown.stdout), shown
    # It does not know IssuingDistributionPoint, and so refuses to rely on a shard, as RFC 5280 5.2 demands.
    refused = run("crlutil", "-I", "-d", database, "-i", shard)
    assert refused.returncode != 0 and "UNKNOWN_CRITICAL_EXTENSION" in refused.stderr
    # Importing the full list verifies its signature with the CA of the store.
    kept = run("crlutil", "-I", "-d", database, "-i", full)
    listed = run("crlutil", "-L", "-d", database, "-n", "sub")
    assert kept.returncode == 0 and colons(scene.elsewhere) in _squeezed(listed.stdout), (kept, listed)


def colons(issued: IssuedCertificate) -> str:
    """Return the serial as octets with colons."""
    serial = issued.record.serial
    return re.sub(r"(..)(?!$)", r"\1:", serial.zfill(len(serial) + len(serial) % 2))


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text.lower())


@pytest.fixture(scope="module")
def big() -> CrlCase:
    """A list of 100,000 entries and its issuer."""
    from testkit.hierarchy import make_node

    issuer = make_node("big", None, ca=True)
    now = utc_now() - timedelta(minutes=2)
    run_of_entries = b"".join(
        encode_entry(RevokedEntry(secrets.randbits(158) | 1 << 158, now, ReasonCode.KEY_COMPROMISE))
        for _ in range(ENTRIES)
    )
    certificate = x509.load_der_x509_certificate(issuer.der)
    algorithm = keys.signature_algorithm(KeyAlgorithm.SECP256R1).der
    tbs = build_crl_tbs(
        issuer_name_der=certificate.subject.public_bytes(),
        authority_key_id=certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest,
        number=1,
        this_update=now,
        next_update=now + timedelta(days=7),
        encoded_entries=run_of_entries,
        signature_algorithm_der=algorithm,
    )
    return CrlCase("big", assemble_crl(tbs, algorithm, keys.sign(issuer.key, tbs)), (issuer.der,))


@pytest.mark.parametrize("tool", [Tool.OPENSSL, Tool.JAVA])
def test_a_list_of_100_000_entries_is_read(tool: Tool, big: CrlCase) -> None:
    need(tool)
    verdict = judge_crls(tool, [big])["big"]
    assert verdict.accepted, verdict
    assert big.crl.count(bytes.fromhex("0603551d15")) == ENTRIES
