"""An EST client: asks one server, which the operator names, and believes nothing but its own trust anchors.

Clause: RFC 7030 3.3.1 (TLS server authentication), 4.1 to 4.2; RFC 8951 (base64 bodies).
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chargepki.pki.der import to_pem
from chargepki.pki.errors import InputError, PolicyRefusal, UnavailableError
from chargepki.pki.est import encode_body, read_certs_only

__all__ = ["EstClient", "EstCredentials", "Pending", "pem_of"]

_TIMEOUT_SECONDS: Final = 30.0
_MAX_ANSWER_BYTES: Final = 2 << 20
_MAX_RETRY_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class EstCredentials:
    """How a client says who it is; both may be given."""

    user: str | None = None
    password: bytes | None = None
    certificate_file: Path | None = None
    """PEM, leaf first."""
    key_file: Path | None = None

    def __repr__(self) -> str:
        return f"EstCredentials(user={self.user!r}, certificate_file={self.certificate_file!r})"


@dataclass(frozen=True, slots=True)
class Pending:
    """The server has not decided yet (202): ask again with the same request."""

    retry_after: int
    """Seconds, 1 to 3600."""


class EstClient:
    """One EST server and label.

    Args:
        url: ``https://HOST[:PORT]/.well-known/est/LABEL`` or another path to which the operation is appended, or in
            which ``{operation}`` stands for it, as in ``/cpo/{operation}/ISO15118-2`` (OPCP 1.0.0).
        cacerts_url: where the CA certificates are, if elsewhere on the same server.
        trust_file: PEM with the anchors of the server's certificate; ``None`` takes those of the system.

    Raises:
        InputError: the URL is not https, or the trust file or the credentials cannot be read.
    """

    def __init__(
        self, url: str, *, trust_file: Path | None, credentials: EstCredentials, cacerts_url: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise InputError(
                "an EST URL is https://HOST[:PORT]/PATH",
                why="RFC 7030 3.3: EST runs over TLS only; credentials do not belong into a URL",
                fix="for example https://est.example.org/.well-known/est/cpo",
            )
        self._host, self._port = parts.hostname, _port(parts.netloc, parts.port if _has_port(parts.netloc) else None)
        path = parts.path.rstrip("/") or "/.well-known/est"
        self._path = path if "{operation}" in path else f"{path}/{{operation}}"
        self._cacerts = None if cacerts_url is None else _other_path(url, cacerts_url)
        self._credentials = credentials
        self._context = _context(trust_file, credentials)

    def get_cacerts(self) -> tuple[bytes, ...]:
        """Return the CA certificates (DER) that the server hands out, in its order.

        Raises:
            UnavailableError: no answer, or not one of a working server.
            InputError: the answer cannot be read.
        """
        status, _, body = self._ask("GET", "cacerts", None)
        if status != 200:
            raise _refusal("cacerts", status, body)
        return read_certs_only(body)

    def enrol(self, csr_der: bytes, *, renew: bool = False) -> tuple[bytes, ...] | Pending:
        """Send a request; return the certificates of the answer (DER), or that it is pending.

        Raises:
            PolicyRefusal: the server refuses, with its words.
            UnavailableError: no answer.
            InputError: the answer cannot be read.
        """
        operation = "simplereenroll" if renew else "simpleenroll"
        status, headers, body = self._ask("POST", operation, encode_body(csr_der))
        if status == 202:
            return Pending(_retry_after(headers.get("retry-after")))
        if status != 200:
            raise _refusal(operation, status, body)
        return read_certs_only(body)

    def enrol_until(
        self,
        csr_der: bytes,
        *,
        renew: bool = False,
        wait_seconds: float,
        tell: Callable[[Pending], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> tuple[bytes, ...] | Pending:
        """Like `enrol`, asking again as the server says, for at most *wait_seconds*."""
        end = clock() + wait_seconds
        while True:
            answer = self.enrol(csr_der, renew=renew)
            if not isinstance(answer, Pending) or clock() + answer.retry_after > end:
                return answer
            tell(answer)
            sleep(answer.retry_after)

    def _ask(self, method: str, operation: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        headers = {"Accept": "application/pkcs7-mime", "User-Agent": "chargepki"}
        if body is not None:
            headers |= {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}
        if self._credentials.user is not None and self._credentials.password is not None:
            pair = self._credentials.user.encode() + b":" + self._credentials.password
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        # http.client follows no redirect and knows no proxy: what the operator named is what is asked.
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_TIMEOUT_SECONDS, context=self._context
        )
        try:
            path = self._path.replace("{operation}", operation)
            if operation == "cacerts" and self._cacerts is not None:
                path = self._cacerts
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER_BYTES + 1)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableError(
                f"the certificate of {self._host} is not accepted",
                why=error.verify_message,
                fix="pass the server's root with --trust, and check the host name",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"the EST server {self._host}:{self._port} does not answer", why=str(error), fix="check the URL"
            ) from error
        finally:
            connection.close()
        if len(content) > _MAX_ANSWER_BYTES:
            raise UnavailableError("the EST server's answer is larger than 2 MiB")
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content


def _other_path(url: str, other: str) -> str:
    """Return the path of *other*, which is on the server of *url*: the credentials are for that one alone."""
    if urlsplit(other)[:2] != urlsplit(url)[:2] or urlsplit(other).query or urlsplit(other).fragment:
        raise InputError(
            "the URL of the CA certificates is not on the server of the EST URL",
            why="the credentials of the one are not for the other",
            fix="give both with the same https://HOST[:PORT]",
        )
    return urlsplit(other).path or "/"


def _has_port(netloc: str) -> bool:
    return ":" in netloc.rpartition("]")[2]


def _port(netloc: str, port: int | None) -> int:
    return 443 if port is None else port


def _context(trust_file: Path | None, credentials: EstCredentials) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if trust_file is None else str(trust_file))
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"{trust_file} holds no trust anchors", why=str(error), fix="pass a PEM file") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A V2G chain has neither subject alternative names nor all the extensions that the strict flag asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if credentials.certificate_file is not None:
        try:
            context.load_cert_chain(credentials.certificate_file, credentials.key_file, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"{credentials.certificate_file} and its key cannot be used",
                why=str(error),
                fix="pass a PEM chain, leaf first, with --cert and its unencrypted key with --key",
            ) from error
    return context


def _retry_after(value: str | None) -> int:
    seconds = int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 9 else 60
    return min(max(seconds, 1), _MAX_RETRY_SECONDS)


def _refusal(operation: str, status: int, body: bytes) -> PolicyRefusal | UnavailableError:
    said = body[:300].decode("utf-8", "replace").strip()
    what = f"the EST server answers {operation} with {status}"
    if status in (429, 500, 502, 503, 504):
        return UnavailableError(what, why=said, fix="try again later")
    fixes = {
        401: "check --user and --password-file",
        403: "check the account's labels and names at the server",
        404: "check the label in the URL",
    }
    return PolicyRefusal(what, why=said, fix=fixes.get(status, "look into the server's log"))


def pem_of(certificates: tuple[bytes, ...]) -> str:
    """Return *certificates* as PEM, in their order."""
    return "".join(to_pem("CERTIFICATE", encoded) for encoded in certificates)
