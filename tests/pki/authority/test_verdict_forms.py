"""A verdict is read the same whichever way it is stored: whole, or as the values that its kind does not fix."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargepki.cli.exporting import Form, export_chunks
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder
from chargepki.pki.errors import StateError
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.codec import load_json
from chargepki.pki.inventory.filters import And
from chargepki.pki.inventory.records import CertificateRecord, Delivery, StationRecord, StationState
from chargepki.pki.inventory.verdict_forms import VerdictForm, VerdictFormRecord, whole_verdict
from testkit.authorities import ACTOR, NOW, log_findings, make_csr, open_inventory
from testkit.effort import examples

TO_0020 = ("DROP TABLE verdict_form", "UPDATE alembic_version SET version_num = '0020'")


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless a test asks for both."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    return url


def issue(authority: Authority, *names: str) -> list[CertificateRecord]:
    """Issue for stations of these names; the third request of a kind is the first that is stored in short."""
    orders = [IssueOrder(ca="t-sub", profile="ocpp/charging-station", csr=make_csr(name)) for name in names]
    answers = authority.issue_many(orders)
    assert all(isinstance(answer, IssuedCertificate) for answer in answers), answers
    return [answer.record for answer in answers if isinstance(answer, IssuedCertificate)]


def stored(inventory: Inventory, certificate: str) -> str:
    """Return the verdict of a row as it is stored."""
    with inventory.snapshot() as session:
        (row,) = session.run("certificate_get", {"id": certificate})
    return str(dict(zip(CertificateRecord.__dataclass_fields__, row, strict=True))["verdict"])


def exported(inventory: Inventory) -> dict[str, object]:
    """Return the verdict of every certificate as an export tells it, by id."""
    chunks = export_chunks(
        inventory, Form.JSON, And(()), everything=False, with_pem=True, passphrase=None, with_verdict=True
    )
    return {each["id"]: each["verdict"] for each in orjson.loads(b"".join(chunks))["certificates"]}


@settings(max_examples=examples(30))
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), st.text("abcdefABC0123456789.:_-", min_size=1))
def test_every_form_gives_the_verdict_that_it_was_made_of(messages: list[str], name: str) -> None:
    kept = [message.replace("|", "") for message in messages]
    whole = orjson.dumps({"rules": [f"{message}|{message}" for message in kept]}).decode()
    form = VerdictForm.of(whole.split("|"))
    short = form.shorten(*[name] * len(kept))
    assert load_json(whole_verdict(short, {form.id: form})) == load_json(whole.replace("|", name))


@pytest.mark.parametrize("text", ["x", "{}", "[]", "[1]"])
def test_what_no_writer_of_ours_stores_is_no_form(text: str) -> None:
    assert VerdictForm.read(VerdictFormRecord(hashlib.sha256(text.encode()).hexdigest(), text)) is None


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_kind_is_stored_once_and_its_certificates_name_it(authority: Authority, tmp_path: Path) -> None:
    inventory = authority.inventory
    first, second, *others = issue(authority, "CS-1", "CS-22", "CS-333", "CS-4444")
    others += issue(authority, "CS-55555")
    assert stored(inventory, first.id)[0] == stored(inventory, second.id)[0] == "{"
    for record in others:
        assert stored(inventory, record.id).startswith('["') and len(stored(inventory, record.id)) < 200
        assert inventory.get_certificate(record.id) == record
        assert record.verdict.keys() == second.verdict.keys() and record.subject in str(record.verdict["request"])
    with inventory.snapshot() as session:
        assert session.execute("SELECT count(*) FROM verdict_form") == [(1,)]
    assert [each.action for each in inventory.list_audit()].count("verdict-form.keep") == 1
    listed = {each.id: each.verdict for each in inventory.list_certificates()}
    assert listed[others[0].id] == others[0].verdict
    assert log_findings(inventory, tmp_path) == []


def test_an_export_tells_both_alike(authority: Authority) -> None:
    """All that differs is the name: the rules and their words are those of a verdict that is stored whole."""
    _, second, third = issue(authority, "CS-22", "CS-1", "CS-3")
    told = exported(authority.inventory)
    assert told[third.id] and orjson.dumps(told[third.id]) == orjson.dumps(told[second.id]).replace(b"CS-1", b"CS-3")


def test_what_happens_to_a_certificate_later_leaves_its_verdict_as_it_is(authority: Authority, tmp_path: Path) -> None:
    inventory = authority.inventory
    *_, revoked, linked, delivered = issue(authority, "CS-1", "CS-22", "CS-3", "CS-4", "CS-5")
    short = {each.id: stored(inventory, each.id) for each in (revoked, linked)}
    assert authority.revoke(revoked.id, "superseded").verdict == revoked.verdict

    def work(tx: Transaction) -> None:
        tx.add_station(StationRecord("A", "other", None, 3, StationState.ACTIVE, NOW))
        tx.link_station(linked.id, "A")
        tx.set_delivery(delivered.id, Delivery.DELIVERED, note={"chain": 1})
        tx.audit(ACTOR, "test.act", "A", now=NOW)

    inventory.write(work)
    for each in (revoked, linked):
        assert stored(inventory, each.id) == short[each.id]
        assert inventory.get_certificate(each.id).verdict == each.verdict
    told = inventory.get_certificate(delivered.id).verdict
    assert told == {**delivered.verdict, "delivery": {"chain": 1}}
    assert log_findings(inventory, tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "code"),
    [("DELETE FROM verdict_form", "row-missing"), ("UPDATE verdict_form SET text = '[]'", "row-changed")],
)
def test_a_form_that_is_gone_is_stored_anew_and_a_changed_one_is_named_by_no_more_certificates(
    authority: Authority, tmp_path: Path, damage: str, code: str
) -> None:
    inventory = authority.inventory
    *_, third = issue(authority, "CS-1", "CS-22", "CS-3")
    with inventory.snapshot() as session:
        ((form,),) = session.execute("SELECT id FROM verdict_form")
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as database:
        database.execute(damage)
        database.commit()
    assert inventory.get_certificate(third.id).verdict == {"form": form}
    assert exported(inventory)[third.id] == []
    assert [finding.partition(":")[0] for finding in log_findings(inventory, tmp_path)] == [code]
    if code == "row-changed":
        with pytest.raises(StateError, match="is not what it was"):
            issue(authority, "CS-4")
    else:
        issue(authority, "CS-4")
        assert inventory.get_certificate(third.id).verdict == third.verdict


def test_an_older_inventory_is_read_and_goes_on(authority: Authority, tmp_path: Path) -> None:
    """Its verdicts are stored whole, and stay so."""
    inventory = authority.inventory
    old = issue(authority, "CS-1", "CS-22")
    assert {stored(inventory, each.id)[0] for each in old} == {"{"}
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as database:
        for statement in TO_0020:
            database.execute(statement)
        database.commit()
    with closing(open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}", tmp_path)) as again:
        for each in old:
            assert again.get_certificate(each.id) == each
            assert stored(again, each.id)[0] == "{"
    (new,) = issue(authority, "CS-3")
    assert stored(inventory, new.id)[0] == "["
    assert inventory.get_certificate(new.id) == new and log_findings(inventory, tmp_path) == []
