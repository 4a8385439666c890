"""The software key store: encrypted, private, never overwritten, and shaped so that a token fits."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chargepki.pki import keys, names
from chargepki.pki.errors import Conflict, InputError, SignerError, StateError
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.signer import KeyStore, KeyStores, Signer, SoftwareKeyStore
from chargepki.pki.signer_pkcs11 import Pkcs11KeyStore

P256 = KeyAlgorithm.SECP256R1


class Asked:
    """A passphrase prompt that counts how often it is shown."""

    def __init__(self, passphrase: bytes = b"correct horse") -> None:
        self.passphrase = passphrase
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.passphrase


def store_in(folder: Path, passphrase: bytes = b"correct horse") -> SoftwareKeyStore:
    return SoftwareKeyStore(folder, Asked(passphrase))


def test_a_key_is_stored_encrypted_in_a_file_of_mode_0600_in_a_folder_of_mode_0700(tmp_path: Path) -> None:
    uri = store_in(tmp_path / "keys").create("ocpp-root-1", P256)
    path = tmp_path / "keys" / "ocpp-root-1.key"
    assert uri == "file:ocpp-root-1.key"
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_process_opens_what_one_created(tmp_path: Path) -> None:
    first, second = store_in(tmp_path), store_in(tmp_path)
    uri = first.create("root", KeyAlgorithm.ED448)
    signer = second.open(uri)
    assert signer.spki_der == first.open(uri).spki_der
    assert signer.algorithm is KeyAlgorithm.ED448
    identifier = keys.signature_algorithm(signer.algorithm).der
    assert keys.verify(signer.public_key, signer.sign(b"data"), b"data", identifier)
    assert second.open(uri) is signer


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    uri = store_in(tmp_path).create("root", P256)
    before = (tmp_path / "root.key").read_bytes()
    with pytest.raises(Conflict, match="exists already"):
        store_in(tmp_path).create("root", P256)
    assert (tmp_path / "root.key").read_bytes() == before
    assert store_in(tmp_path).open(uri).uri == uri


def test_the_passphrase_is_asked_once_and_only_when_needed(tmp_path: Path) -> None:
    asked = Asked()
    store = SoftwareKeyStore(tmp_path, asked)
    assert not store.exists("a")
    assert store.uri("a") == "file:a.key"
    assert asked.times == 0
    store.create("a", P256)
    store.create("b", P256)
    assert store.exists("a")
    again = SoftwareKeyStore(tmp_path, asked)
    again.open("file:a.key")
    again.open("file:b.key")
    assert asked.times == 2  # once for each store


def test_a_link_that_leads_nowhere_takes_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    assert SoftwareKeyStore(tmp_path, lambda: b"pass").exists("a")


def test_a_wrong_passphrase_names_the_key_and_not_itself(tmp_path: Path) -> None:
    uri = store_in(tmp_path).create("root", P256)
    with pytest.raises(SignerError, match=r"root\.key") as caught:
        store_in(tmp_path, b"Tr0ub4dor").open(uri)
    assert "passphrase" in caught.value.why
    assert "Tr0ub4dor" not in str(caught.value)


def test_a_mistyped_passphrase_cannot_create_a_key_beside_others(tmp_path: Path) -> None:
    store_in(tmp_path).create("root", P256)
    with pytest.raises(SignerError, match=r"root\.key"):
        store_in(tmp_path, b"typo").create("sub", P256)
    assert not (tmp_path / "sub.key").exists()


def test_an_empty_passphrase_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="empty"):
        store_in(tmp_path, b"").create("root", P256)
    assert list(tmp_path.iterdir()) == []


def test_absent_damaged_and_exposed_keys_are_signer_errors(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="no key file"):
        store_in(tmp_path).open("file:root.key")
    uri = store_in(tmp_path).create("root", P256)
    path = tmp_path / "root.key"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(SignerError, match="cannot open"):
        store_in(tmp_path).open(uri)
    path.write_bytes(whole)
    path.chmod(0o644)
    if os.name == "posix":
        with pytest.raises(SignerError, match="others can read"):
            store_in(tmp_path).open(uri)


def test_a_folder_that_others_can_write_to_gets_no_key(tmp_path: Path) -> None:
    if os.name != "posix":
        return
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match="others can write"):
        store_in(tmp_path).create("root", P256)


@pytest.mark.parametrize("label", ["", "../evil", "a/b", "a\\b", ".hidden", "-o", "a b", "a\n", "a\0", "ä", "x" * 121])
def test_labels_cannot_leave_the_folder(label: str, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for use in (
        store.uri,
        store.exists,
        lambda name: store.create(name, P256),
        lambda name: store.open(f"file:{name}.key"),
    ):
        with pytest.raises(InputError):
            use(label)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["root.key", "file:root", "file:/etc/root.key", "file://root.key", "FILE:root.key", ""])
def test_other_uris_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        store_in(tmp_path).open(uri)


def test_neither_repr_shows_a_secret(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    signer = store.open(store.create("root", P256))
    for shown in (repr(store), repr(signer), repr(KeyStores(store))):
        assert "horse" not in shown
        assert "PRIVATE" not in shown
    assert repr(signer).startswith("Signer(uri='file:root.key'")


def test_threads_share_one_opened_key_and_one_question(tmp_path: Path) -> None:
    uri = store_in(tmp_path).create("root", P256)
    asked = Asked()
    store = SoftwareKeyStore(tmp_path, asked)
    opened: list[Signer] = []
    threads = [threading.Thread(target=lambda: opened.append(store.open(uri))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert all(signer is opened[0] for signer in opened)
    assert asked.times == 1


def test_key_stores_choose_by_scheme(tmp_path: Path) -> None:
    stores: KeyStore = KeyStores(store_in(tmp_path))
    uri = stores.create("root", P256)
    assert stores.uri("root") == uri
    assert stores.exists("root")
    assert stores.open(uri).uri == uri
    for unknown in ("awskms:root", "root", "", "pkcs11:object=root"):
        with pytest.raises(InputError, match="not the URI of a key"):
            stores.open(unknown)
    tokens = KeyStores(store_in(tmp_path), {"pkcs11": Pkcs11KeyStore(None, lambda token: b"")})
    with pytest.raises(SignerError, match="no PKCS #11 module is configured"):
        tokens.open("pkcs11:object=root;type=private")


class TokenKey(ec.EllipticCurvePrivateKey):
    """What a PKCS #11 adapter will look like: a key whose private half is elsewhere."""

    def __init__(self, inside: ec.EllipticCurvePrivateKey) -> None:
        self._inside = inside

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._inside.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._inside.curve

    @property
    def key_size(self) -> int:
        return self._inside.key_size

    def sign(self, data: object, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        return self._inside.sign(data, signature_algorithm)  # type: ignore[arg-type]  # Buffer is named from 3.12 on

    def exchange(self, *_: object) -> NoReturn:
        raise AssertionError("a token gives nothing away")

    def private_numbers(self) -> NoReturn:
        raise AssertionError("a token gives nothing away")

    def private_bytes(self, *_: object) -> NoReturn:
        raise AssertionError("a token gives nothing away")

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> TokenKey:
        return self


@pytest.fixture
def token() -> Iterator[Signer]:
    inside = ec.generate_private_key(ec.SECP384R1())
    yield Signer.of("pkcs11:object=root", TokenKey(inside))


def test_a_key_object_of_a_token_signs_like_any_other(token: Signer) -> None:
    assert token.algorithm is KeyAlgorithm.SECP384R1
    identifier = keys.signature_algorithm(token.algorithm).der
    assert keys.verify(token.public_key, token.sign(b"data"), b"data", identifier)


def test_a_key_object_of_a_token_fits_the_builders_of_the_library(token: Signer) -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(names.parse_rdns("CN=a")).sign(
        token.private_key, hashes.SHA384()
    )  # fmt: skip
    assert request.is_signature_valid
