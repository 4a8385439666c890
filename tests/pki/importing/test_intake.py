"""What an import finds in files, folders, archives and databases; and what hostile ones do to it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7, pkcs12

from chargepki.pki.der import to_pem
from chargepki.pki.importing import Intake, archives, intake
from chargepki.pki.importing.facts import read_facts
from chargepki.pki.importing.openssl_index import IndexRow, parse_index
from chargepki.pki.inventory.cfssl import read_cfssl
from testkit.estate import BORN, Estate

ESTATE = Estate()
ROOT, ONE, TWO = (ESTATE.certificate(number) for number in range(3))
SERIALS = ["1000", "1001", "1002"]
KEY = ESTATE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def pem(*ders: bytes) -> bytes:
    return "".join(to_pem("CERTIFICATE", der) for der in ders).encode()


def serials(taken: Intake, path: Path) -> list[str]:
    return sorted(found.serial for found in taken.path(str(path)))


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_facts_are_those_of_the_certificate() -> None:
    found = read_facts(ONE, "here", "ab" * 32, "secc")
    parsed = x509.load_der_x509_certificate(ONE)
    assert (found.serial, found.place, found.role) == ("1001", "here", "secc")
    assert found.issuer_der == parsed.issuer.public_bytes() and found.subject_der == parsed.subject.public_bytes()
    assert (found.not_before, found.not_after) == (parsed.not_valid_before_utc, parsed.not_valid_after_utc)
    key_id = x509.SubjectKeyIdentifier.from_public_key(parsed.public_key()).digest
    assert found.authority_key_id == key_id


def test_every_container_is_read_and_private_keys_are_counted(tmp_path: Path) -> None:
    certificates = [x509.load_der_x509_certificate(der) for der in (ROOT, ONE, TWO)]
    bundle = pkcs12.serialize_key_and_certificates(b"x", ESTATE.key, certificates[1], [certificates[0]], NoEncryption())
    contents = {
        "plain.pem": pem(ROOT, ONE, TWO),
        "der.cer": ONE,
        "mangled.pem": b"\xef\xbb\xbfnotes\r\n" + pem(ONE).replace(b"\n", b"\r\n"),
        "with-key.pem": pem(ONE) + KEY,
        "bag.p7b": pkcs7.serialize_certificates(certificates, Encoding.DER),
        "store.p12": bundle,
    }
    expected = {"plain.pem": SERIALS, "bag.p7b": SERIALS, "store.p12": ["1000", "1001"]}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        taken = Intake()
        assert serials(taken, tmp_path / name) == expected.get(name, ["1001"]), name
        assert taken.private_keys == (name in ("with-key.pem", "store.p12")), name
        assert not taken.problems, name


def test_archives_are_looked_into_and_nothing_is_unpacked(tmp_path: Path) -> None:
    inner = zipped(**{"../../escape.pem": pem(TWO), "deep/one.pem": pem(ONE)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("ca/root.pem", pem(ROOT)), ("inner.zip", inner)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        archive.addfile(tarfile.TarInfo("folder/"))
        link = tarfile.TarInfo("link.pem")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    plain = buffer.getvalue()
    archived = {
        "a.tar": plain,
        "a.tar.gz": gzip.compress(plain),
        "a.tar.bz2": bz2.compress(plain),
        "a.tar.xz": lzma.compress(plain),
        "a.zip": zipped(**{"b.tar": plain, "c.tar.xz": lzma.compress(plain)}),
    }
    for name, data in archived.items():
        (tmp_path / name).write_bytes(data)
        taken = Intake()
        assert serials(taken, tmp_path / name) == sorted(SERIALS * (2 if name == "a.zip" else 1)), name
        assert not taken.problems
    for ending, compress in COMPRESSIONS.items():
        file = tmp_path / f"V2G_ROOT_CA.pem.{ending}"
        file.write_bytes(compress(pem(ROOT)))
        (found,) = Intake().path(str(file))
        assert (found.place, found.role) == (f"{file}!", "v2g-root")
    assert len(list(tmp_path.iterdir())) == len(archived) + 3


@pytest.mark.parametrize("ending", list(COMPRESSIONS))
def test_compressed_files_end_where_they_end(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_CHUNK", 1000)
    compress = COMPRESSIONS[ending]
    file = tmp_path / f"a.pem.{ending}"
    # More comes out of the last octets than is asked for at once.
    text = pem(*[ONE] * 30)
    for data, expected, problem in (
        (compress(text), 30, None),
        (compress(pem(ONE)) + compress(pem(TWO)), 2, None),
        (compress(pem(ONE)) + bytes(700), 1, None),
        (compress(text)[:-9], 0, "it is cut off"),
        (compress(pem(ONE)) + b"something else", 0, "something else lies "),
        (compress(b""), 0, None),
    ):
        file.write_bytes(data)
        taken = Intake()
        assert len(serials(taken, file)) == expected
        assert [each.reason.partition(": ")[2][:20] for each in taken.problems] == ([problem] if problem else [])


def test_dictionary_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    compressor = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
    (tmp_path / "a.pem.xz").write_bytes(compressor.compress(pem(ONE)) + compressor.flush())
    taken = Intake()
    assert serials(taken, tmp_path / "a.pem.xz") == []
    assert "emory" in taken.problems[0].reason


def test_bombs_are_given_up_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.Allowance.__init__, "__defaults__", (200, 4 << 20, 1 << 40, 10, 3))
    zeros = bytes(6 << 20)
    (tmp_path / "1.zip").write_bytes(zipped(bomb=zeros, never=pem(ONE)))
    (tmp_path / "2.tar.gz").write_bytes(gzip.compress(zeros))
    (tmp_path / "3.zip").write_bytes(zipped(**{f"{number}": b"x" for number in range(11)}))
    nested = zipped(a=pem(ONE))
    for _ in range(4):
        nested = zipped(**{"in.zip": nested})
    (tmp_path / "4.zip").write_bytes(nested)
    (tmp_path / "5.tar.gz").write_bytes(gzip.compress(pax_bomb()))
    (tmp_path / "6.zip").write_bytes(zipped(a=pem(ONE))[:60])
    (tmp_path / "7.pem").write_bytes(pem(TWO))
    (tmp_path / "8.tar.bz2").write_bytes(bz2.compress(zeros))
    (tmp_path / "9.tar.xz").write_bytes(lzma.compress(zeros, preset=0))
    taken = Intake()
    assert serials(taken, tmp_path) == ["1002"]
    told = {Path(problem.place.partition("!")[0]).name: problem.reason for problem in taken.problems}
    assert sorted(told) == ["1.zip", "2.tar.gz", "3.zip", "4.zip", "5.tar.gz", "6.zip", "8.tar.bz2", "9.tar.xz"]
    for name in ("1.zip", "2.tar.gz", "8.tar.bz2", "9.tar.xz"):
        assert "beyond all measure" in told[name]
    assert "more than 10 files" in told["3.zip"] and "not looked into" in told["4.zip"]
    assert "a header of" in told["5.tar.gz"] and "any further" in told["6.zip"]


def pax_bomb() -> bytes:
    """Return a tar archive whose extended header says that it is two megabytes long."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 << 20
    return info.tobuf() + bytes(2 << 20)


def test_bad_files_are_told_of_and_never_stop_the_rest(tmp_path: Path) -> None:
    whole = pem(ONE)
    (tmp_path / "a-cut.pem").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b-damaged.cer").write_bytes(ONE[:40] + b"\xff\xff" + ONE[42:])
    (tmp_path / "c-readme.txt").write_text("nothing of ours")
    (tmp_path / "d-empty").touch()
    os.mkfifo(tmp_path / "e-pipe")
    (tmp_path / "f-gone").symlink_to("/nowhere")
    (tmp_path / "g\udcff\n.pem").write_bytes(whole)
    taken = Intake()
    (found,) = taken.path(str(tmp_path))
    assert found.place == f"{tmp_path}/g\\udcff\\n.pem"
    assert [Path(problem.place).name for problem in taken.problems] == ["a-cut.pem", "b-damaged.cer"]
    assert taken.passed_over == 2


def test_large_bundle_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_MAX_FILE", 1000)
    monkeypatch.setattr(intake, "_CHUNK", 700)
    (tmp_path / "all.pem").write_bytes(b"words\n" + pem(ROOT, ONE) + b"-----BEGIN X-----\n\n" * 100 + pem(TWO))
    (tmp_path / "noise").write_bytes(bytes(5000))
    taken = Intake()
    assert serials(taken, tmp_path) == SERIALS
    assert [problem.reason for problem in taken.problems] == ["larger than 0 MiB, and no bundle of PEM"]


def test_index_of_openssl_is_read_line_by_line() -> None:
    text = (
        "V\t270101000000Z\t\t1001\tunknown\t/CN=a\n"
        "R\t20510101000000Z\t260301120000Z,keyTime,20260201000000Z\t0A\tunknown\t/CN=b\r\n"
        "R\t270101000000Z\t260301120000Z\t0B\tunknown\t/CN=c\n"
        "E\t250101000000Z\t\t0C\tunknown\t/CN=d\n"
        "R\t270101000000Z\t260301120000Z,nonsense\t0D\tunknown\t/CN=e\n"
        "V\t270101000000Z\t\n"
        "V\t279901000000Z\t\t0E\tunknown\t/CN=f\n"
    )
    rows = list(parse_index(text.encode(), within="/ca/"))
    read = [row for row in rows if isinstance(row, IndexRow)]
    assert [row.serial for row in read] == ["1001", "a", "b", "c", "d"] and len(rows) == 7
    assert read[0].revocation is None and read[0].not_after == datetime(2027, 1, 1, tzinfo=UTC)
    fact = read[1].revocation
    assert fact is not None and (fact.reason, fact.within) == ("keyCompromise", "/ca/")
    assert fact.invalidity_date == datetime(2026, 2, 1, tzinfo=UTC) and read[1].not_after.year == 2051
    assert [row.revocation and row.revocation.reason for row in read[2:]] == ["unspecified", None, "unspecified"]


def cfssl_database(path: Path) -> None:
    """Make a database with the table that cfssl's own migration makes."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE certificates (serial_number blob NOT NULL, authority_key_identifier blob NOT NULL,"
            " ca_label blob, status blob NOT NULL, reason int, expiry timestamp, revoked_at timestamp,"
            " pem blob NOT NULL, PRIMARY KEY(serial_number, authority_key_identifier))"
        )
        never, gone = "0001-01-01 00:00:00+00:00", "2026-03-01 13:00:00.5+01:00"
        rows = [("4097", "good", 0, never, ONE), ("4098", "revoked", 4, gone, TWO), ("9", "good", 0, never, b"")]
        for serial, status, reason, at, der in rows:
            values = (serial, "aa", "", status, reason, BORN.isoformat(), at, pem(der).decode() if der else "")
            connection.execute("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def test_database_of_cfssl_is_read_and_not_written(tmp_path: Path) -> None:
    database = tmp_path / "certs.db"
    cfssl_database(database)
    before = database.read_bytes()
    taken = Intake()
    assert serials(taken, database) == ["1001", "1002"]
    (fact,) = taken.revocations
    assert (fact.serial, fact.reason) == ("1002", "superseded")
    assert fact.revoked_at == datetime(2026, 3, 1, 12, 0, 0, 500000, tzinfo=UTC)
    assert [problem.place for problem in taken.problems] == [f"{database}!certificates/9"]
    (tmp_path / "a.zip").write_bytes(zipped(**{"certs.db": before}))
    assert serials(Intake(), tmp_path / "a.zip") == ["1001", "1002"]
    assert database.read_bytes() == before and list(read_cfssl(database))
    hostile = tmp_path / "hostile.db"
    with sqlite3.connect(hostile) as connection:
        connection.execute(
            "CREATE VIEW certificates AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS serial_number, 'good' AS status, 0 AS reason, 0 AS revoked_at, '' AS pem FROM n"
        )
    taken = Intake()
    assert serials(taken, hostile) == []
    assert (taken.passed_over, taken.problem_count) == (1, 0), "a view is no table"
    hostile.write_bytes(before[:100] + b"\xff" * 4000)
    assert serials(taken, hostile) == [] and taken.problem_count == 1


def test_places_fit_the_index_of_a_database() -> None:
    long = [f"/{'x' * 600}{number}" for number in range(2)]
    found = [next(Intake().endpoint(place, [ONE])).place for place in long]
    assert found[0] != found[1] and max(map(len, found)) <= 500
