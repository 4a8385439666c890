"""The commands that change something, each with what must hold once it has been run again after a crash."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.core import utc_now
from chargepki.pki.authority.list_check import check_lists
from chargepki.pki.authority.offline_files import CaAnswer, CaRequestFile
from chargepki.pki.authority.queue import enqueue
from chargepki.pki.authority.rollover import RolloverOrder, roll_over
from chargepki.pki.crl import crl_contains
from chargepki.pki.csr import build_csr
from chargepki.pki.inventory import AuditKey, Inventory
from chargepki.pki.inventory.records import CaState, CertificateState, IssuanceState
from chargepki.pki.names import build_name, name_der
from chargepki.pki.signer import Signer, SoftwareKeyStore
from testkit.authorities import ACTOR, make_csr, make_key
from testkit.crash import CHANGING_CALLS, PASSPHRASE, Call, Outcome, Place, Runner
from testkit.crash_judge import cheapen_keys, key_files, problems

__all__ = [
    "ISSUE",
    "SCENARIOS",
    "SUBJECT",
    "Scenario",
    "arguments_of",
    "build_template",
    "end_leases",
    "filled",
    "goes_on",
    "open_place",
    "undisturbed",
]

SUBJECT = ("--subject", "CN=Crash CA,O=Test CSO,C=DE")
ISSUE = ("cert", "issue", "--ca", "s", "--profile", "ocpp/charging-station")
QUEUED = 3


def open_place(place: Place) -> Inventory:
    """Open the inventory of a finished run, with its log key."""
    return Inventory.open(place.url, log_key=AuditKey.load(place.home / "audit.key"))


def end_leases(place: Place) -> None:
    """Let the minute pass for which a crashed process holds what it took from the queue."""
    if (place.home / "inventory.db").exists():
        with sqlite3.connect(place.home / "inventory.db", isolation_level=None) as connection:
            connection.execute("UPDATE lease SET until = '2000-01-01T00:00:00.000000Z'")
        connection.close()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One command."""

    arguments: tuple[str, ...]
    settled: Callable[[Place, Inventory], str | None]
    """Says what is missing once the command has been repeated with success; ``None`` when nothing is."""
    start: str = "ready"
    """The workspace it starts from: ``empty`` or ``ready`` (root r, sub-CA s, one certificate, a queue)."""
    sample: int = 100
    """How many calls within unbroken runs of one kind are tried in an ordinary test run."""
    done_before: Callable[[Place, Inventory], bool] = lambda place, inventory: False
    """Whether the crashed run had finished its work, so that the repeat may be refused as a conflict (exit 3)."""
    before_repeat: Callable[[Place], None] = lambda place: None
    campaign: bool = False
    """Tried in a campaign alone."""
    setup: Callable[[Runner, Place], None] = lambda runner, place: None
    """Makes of a copy of `start` what the command starts from."""
    lists: bool = False
    """It tells what failed item by item, not as one error."""
    ends: tuple[int, ...] = (0,)
    """Exit codes of a run that outlived its fault."""
    resumes: tuple[str, ...] = ()
    """What is added to the repeat when a person sees that the step that was interrupted is done."""


def _active(name: str) -> Callable[[Place, Inventory], bool]:
    def judge(place: Place, inventory: Inventory) -> bool:
        ca = inventory.find_ca(name)
        return ca is not None and ca.state is CaState.ACTIVE

    return judge


def _ca_settled(name: str) -> Callable[[Place, Inventory], str | None]:
    def judge(place: Place, inventory: Inventory) -> str | None:
        ca = inventory.get_ca(name)
        if ca.state is not CaState.ACTIVE or ca.certificate_der is None:
            return f"{ca.id} is {ca.state}"
        key = load_pem_private_key((place.home / "keys" / f"{ca.id}.key").read_bytes(), PASSPHRASE)
        public = x509.load_der_x509_certificate(ca.certificate_der).public_key()
        if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public.public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        ):
            return "the key is not the key of the certificate"
        made = [record for record in inventory.list_certificates() if record.request_key == f"ca:{ca.id}"]
        return None if len(made) == 1 else f"{len(made)} certificates were made for {ca.id}"

    return judge


def _issue_settled(place: Place, inventory: Inventory) -> str | None:
    (leaf,) = x509.load_pem_x509_certificates((place.out / "a.pem").read_bytes())
    made = [record for record in inventory.list_certificates() if "CN=CS-A" in record.subject]
    if [record.der for record in made] != [leaf.public_bytes(Encoding.DER)]:
        return f"{len(made)} certificates for one request"
    chain = place.out / "chain.pem"
    if chain.exists():
        first, second = x509.load_pem_x509_certificates(chain.read_bytes())
        if first != leaf or second.public_bytes(Encoding.DER) != inventory.get_ca("s").certificate_der:
            return "the chain is not leaf and sub-CA"
    key = place.out / "new.key"
    if key.exists():
        public = load_pem_private_key(key.read_bytes(), None).public_key()
        if public != leaf.public_key():
            return "the key that was written is not the key of the certificate"
    return None


def _batch_settled(place: Place, inventory: Inventory) -> str | None:
    for name in "CD":
        (leaf,) = x509.load_pem_x509_certificates((place.out / "batch" / f"{name}.pem").read_bytes())
        made = [record for record in inventory.list_certificates() if f"CN=CS-{name}," in f"{record.subject},"]
        if [record.der for record in made] != [leaf.public_bytes(Encoding.DER)]:
            return f"{len(made)} certificates for {name}.csr"
    return None


def _key_handed_out(place: Place) -> bool:
    return (place.out / "new.key").exists() and not (place.out / "new.key.part").exists()


def _revoke_settled(place: Place, inventory: Inventory) -> str | None:
    record = next(record for record in inventory.list_certificates() if "CN=CS-B" in record.subject)
    if record.state is not CertificateState.REVOKED or record.revocation_reason != "superseded":
        return f"{record.id} is {record.state}"
    return _published(place, inventory, entries=1)


def _held_settled(place: Place, inventory: Inventory) -> str | None:
    record = next(record for record in inventory.list_certificates() if "CN=CS-B" in record.subject)
    if record.state is not CertificateState.REVOKED or record.revocation_reason != "certificateHold":
        return f"{record.id} is {record.state}"
    number = record.shard
    for name, crl in (
        (f"s@1/{number}.crl", inventory.latest_shard_crl("s@1", number or 0)),
        ("s@1-delta.crl", inventory.latest_delta_crl("s@1")),
    ):
        if crl is None or (place.published / "crl" / name).read_bytes() != crl.der:
            return f"{name} is not the newest list"
        if crl_contains(crl.der, int(record.serial, 16)) is not (crl.entries == 1):
            return f"{name} does not have its entries"
    if problems := check_lists(inventory, "s@1"):
        return f"the lists contradict the certificates: {problems}"
    return _published(place, inventory, entries=1)


def _crl_settled(place: Place, inventory: Inventory) -> str | None:
    latest = inventory.latest_crl("s@1")
    if latest is None or (place.out / "s.crl").read_bytes() != latest.der:
        return "--out is not the newest list"
    return _published(place, inventory, entries=0)


def _published(place: Place, inventory: Inventory, *, entries: int) -> str | None:
    latest = inventory.latest_crl("s@1")
    if latest is None or latest.entries != entries:
        return "the newest list does not tell the state"
    if (place.published / "crl" / "s@1.crl").read_bytes() != latest.der:
        return "the newest list is not published"
    if (place.published / "ca" / "s@1.cer").read_bytes() != inventory.get_ca("s").certificate_der:
        return "the certificate of the CA is not published"
    return None


def _queue_settled(place: Place, inventory: Inventory) -> str | None:
    answers = inventory.list_issuances()
    if [answer.state for answer in answers] != [IssuanceState.ISSUED] * QUEUED:
        return f"the queue holds {[str(answer.state) for answer in answers]}"
    made = [record for record in inventory.list_certificates() if "CN=CS-Q" in record.subject]
    # A rollover gives up what its predecessor had only reserved.
    made = [record for record in made if record.state is not CertificateState.VOIDED]
    if {record.id for record in made} != {answer.certificate for answer in answers} or len(made) != QUEUED:
        return f"{len(made)} certificates for {QUEUED} requests"
    return None


def _roll_over_sub(place: Place) -> None:
    """Roll the CA over whose requests wait, and let the minute pass of who took them."""
    with open_place(place) as inventory:
        keys = SoftwareKeyStore(place.home / "keys", lambda: PASSPHRASE)
        authority = Authority(inventory, keys, actor=ACTOR, public_url="http://pki.example.org")
        roll_over(authority, RolloverOrder("s"))
    end_leases(place)


def _rolled(name: str, crosses: int) -> Callable[[Place, Inventory], str | None]:
    def judge(place: Place, inventory: Inventory) -> str | None:
        if wrong := _ca_settled(f"{name}@2")(place, inventory):
            return wrong
        states = {ca.id: ca.state for ca in inventory.list_cas(name=name)}
        if states != {f"{name}@1": CaState.RETIRED, f"{name}@2": CaState.ACTIVE}:
            return f"the generations are {states}"
        made = [each for each in inventory.list_certificates() if each.profile == "common/cross"]
        if [each.state for each in made] != [CertificateState.ISSUED] * crosses:
            return f"{len(made)} cross-certificates, {[str(each.state) for each in made]}"
        return None

    return judge


def _cross_settled(place: Place, inventory: Inventory) -> str | None:
    (made,) = [each for each in inventory.list_certificates() if each.profile == "common/cross"]
    (written,) = x509.load_pem_x509_certificates((place.out / "cross.pem").read_bytes())
    return None if written.public_bytes(Encoding.DER) == made.der else "another cross-certificate was written"


def _requested(place: Place, inventory: Inventory) -> str | None:
    found = CaRequestFile.parse((place.out / "request.json").read_bytes())
    kept = CaRequestFile.parse((place.home / "requests" / "n@1.json").read_bytes())
    if found != kept or inventory.get_ca("n").state is not CaState.PENDING:
        return "the request that was written is not the one that is kept"
    return None


def _answered(place: Place, inventory: Inventory) -> str | None:
    answer = CaAnswer.parse((place.out / "answer.json").read_bytes())
    made = [each for each in inventory.list_certificates() if each.request_key.startswith("id:ca-request:")]
    return None if [each.der for each in made] == [answer.certificate] else f"{len(made)} certificates for one request"


def _write_request(place: Place) -> None:
    """Make the request of another workspace's CA; its key is thrown away, for nothing is accepted here."""
    signer = Signer.of("memory:x", make_key())
    subject = name_der(build_name([("C", "DE"), ("O", "Test CSO"), ("CN", "Elsewhere")]))
    csr = build_csr(subject, signer.spki_der, signer.algorithm, signer.sign)
    document = CaRequestFile("x@1", "ocpp/cso-sub", csr, None).to_json()
    (place.root / "request.json").write_text(json.dumps(document), encoding="ascii")


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "create-root": Scenario(
            ("ca", "create", "n", "--profile", "ocpp/cso-root", *SUBJECT),
            _ca_settled("n"),
            start="empty",
            sample=20,
            done_before=_active("n"),
        ),
        "create-sub": Scenario(
            ("ca", "create", "n", "--profile", "ocpp/cso-sub", "--issuer", "r", *SUBJECT),
            _ca_settled("n"),
            sample=10,
            done_before=_active("n"),
        ),
        "issue": Scenario(
            (*ISSUE, "--csr", "a.csr", "--out", "out/a.pem", "--chain-out", "out/chain.pem"), _issue_settled
        ),
        "issue-batch": Scenario(
            ("cert", "issue-batch", *ISSUE[2:], "--csr-dir", "csrs", "--out-dir", "out/batch", "--jobs", "1"),
            _batch_settled,
            sample=2,
            lists=True,
        ),
        "issue-new-key": Scenario(
            (*ISSUE, "--new-key", "--key-out", "out/new.key", "--subject", "CN=CS-A,O=Test CSO", "--out", "out/a.pem"),
            _issue_settled,
            sample=5,
            done_before=lambda place, inventory: _key_handed_out(place),
        ),
        "revoke": Scenario(
            ("cert", "revoke", "{b}", "--reason", "superseded", "--publish-dir", "www"), _revoke_settled, sample=10
        ),
        "hold-in-shard": Scenario(
            ("cert", "revoke", "{b}", "--reason", "certificateHold", "--publish", "--publish-dir", "www"),
            _held_settled,
            sample=5,
        ),
        "crl": Scenario(
            ("crl", "publish", "--ca", "s", "--publish-dir", "www", "--out", "out/s.crl"), _crl_settled, sample=10
        ),
        "rollover-root": Scenario(("ca", "rollover", "r"), _rolled("r", 2), sample=3, campaign=True),
        "rollover-sub": Scenario(("ca", "rollover", "s"), _rolled("s", 0), sample=3, campaign=True),
        "cross-sign": Scenario(
            ("ca", "cross-sign", "q", "--issuer", "r", "--out", "out/cross.pem"),
            _cross_settled,
            sample=3,
            campaign=True,
        ),
        "request": Scenario(
            ("ca", "request", "n", "--profile", "ocpp/cso-sub", *SUBJECT, "--out", "out/request.json"),
            _requested,
            sample=3,
            campaign=True,
        ),
        "sign-request": Scenario(
            ("ca", "sign-request", "request.json", "--issuer", "r", "--out", "out/answer.json"),
            _answered,
            sample=3,
            campaign=True,
        ),
        "serve": Scenario(("authority", "serve", "--once"), _queue_settled, sample=15, before_repeat=end_leases),
        "serve-rolled": Scenario(
            ("authority", "serve", "--once"), _queue_settled, before_repeat=_roll_over_sub, campaign=True
        ),
    }
)


def arguments_of(scenario: Scenario, place: Place) -> list[str]:
    """Return the command line, with the id that only the template knows."""

    return filled(scenario.arguments, place)


def filled(arguments: Sequence[str], place: Place) -> list[str]:
    """Return *arguments* with what stands in files of *place* put in: ``{b}`` and ``{root}``."""
    names = {"{b}": "b.id", "{root}": "root.sha256"}
    return [(place.root / names[part]).read_text() if part in names else part for part in arguments]


def undisturbed(
    runner: Runner, scenario: Scenario, start: Place, folder: Path, calls: Sequence[str] = CHANGING_CALLS
) -> tuple[Call, ...]:
    """Return the calls of a run that nothing disturbs."""
    place = start.copy_to(folder / "undisturbed")
    outcome = runner.run(place, *arguments_of(scenario, place), traced=True, calls=calls)
    assert outcome.code == 0, outcome.stderr
    assert (found := problems(place, [outcome], keys=key_files(start))) == [], found
    with open_place(place) as inventory:
        assert scenario.settled(place, inventory) is None
    return outcome.calls


def goes_on(runner: Runner, scenario: Scenario, place: Place, first: Outcome, start: Place) -> Iterator[str]:
    """Judge what a crash left, repeat the command, and yield everything that is wrong."""
    yield from problems(place, [first], keys=key_files(start))
    keys, released = key_files(place), {path: path.read_bytes() for path in place.out.glob("*.pem")}
    finished = False
    if start.home.exists() or scenario.start == "empty":
        copy = place.copy_to(place.root.with_name(f"{place.root.name}-look"))
        if (copy.home / "audit.key").exists():
            with open_place(copy) as inventory:
                finished = scenario.done_before(copy, inventory)
        shutil.rmtree(copy.root)
    scenario.before_repeat(place)
    repeat = runner.run(place, *arguments_of(scenario, place))
    if scenario.resumes and repeat.code == 3 and not finished:
        repeat = runner.run(place, *arguments_of(scenario, place), *scenario.resumes)
    if repeat.code != 0 and not (finished and repeat.code == 3):
        yield f"the repeat ended with {repeat.code}: {repeat.stderr.strip()}"
        return
    yield from problems(place, [first, repeat], keys=keys)
    for path, content in released.items():
        if path.read_bytes() != content:
            yield f"the repeat gave another {path.name}"
    with open_place(place) as inventory:
        if open_ones := [record.id for record in inventory.list_reserved()]:
            yield f"still reserved: {open_ones}"
        if missing := scenario.settled(place, inventory):
            yield missing


def build_template(runner: Runner, place: Place) -> None:
    """Fill *place* with what the scenarios start from; raises if a command fails."""

    def run(*arguments: str) -> Outcome:
        outcome = runner.run(place, *arguments)
        assert outcome.code == 0, outcome.stderr
        return outcome

    run("ca", "create", "r", "--profile", "ocpp/cso-root", "--subject", "CN=Root,O=Test CSO,C=DE")
    run("ca", "create", "q", "--profile", "ocpp/cso-root", "--subject", "CN=Other root,O=Test CSO,C=DE")
    _write_request(place)
    # With shards and deltas, so that whatever is published is several files.
    sub = ("ca", "create", "s", "--profile", "ocpp/cso-sub", "--issuer", "r", "--subject", "CN=Sub,O=Test CSO,C=DE")
    run(*sub, "--crl-shard-size", "10", "--crl-delta", "24h")
    cheapen_keys(place)
    for name in "ab":
        (place.root / f"{name}.csr").write_bytes(make_csr(f"CS-{name.upper()}"))
    (place.root / "csrs").mkdir()
    for name in "CD":
        (place.root / "csrs" / f"{name}.csr").write_bytes(make_csr(f"CS-{name}"))
    run(*ISSUE, "--csr", "b.csr", "--out", "out/b.pem")
    with open_place(place) as inventory:
        for number in range(QUEUED):
            order = IssueOrder(ca="s", profile="ocpp/charging-station", csr=make_csr(f"CS-Q{number}"))
            enqueue(inventory, order, actor=ACTOR, now=utc_now())
        revocable = next(record for record in inventory.list_certificates() if "CN=CS-B" in record.subject)
        (place.root / "b.id").write_text(revocable.id)
