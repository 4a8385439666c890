"""The TLS material of ``csms serve``: read, checked, and read again while nobody is dropped."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from chargepki.cli.csms_settings import Secret
from chargepki.cli.globals import GlobalState
from chargepki.ocpp_security.csms import ClientTrust
from chargepki.ocpp_security.security_profile import SecurityProfile
from chargepki.ocpp_security.sign_certificate import CertificateUse, IssuePlan
from chargepki.ocpp_security.tls import TlsIdentity, missing_issuer, missing_suites, server_context
from chargepki.pki import files, keys, names
from chargepki.pki.authority import Authority, IssueOrder
from chargepki.pki.authority.cross import links_to_earlier, links_to_later
from chargepki.pki.errors import InputError, printable
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pem import pem_blocks
from chargepki.pki.post_quantum import check_no_tls, has_ml_dsa_key
from chargepki.pki.workspace import Workspace

__all__ = ["Material", "TlsLoader", "server_identities"]

# A00.FR.701: a server certificate is revoked by expiring within a day.
_SERVER_VALIDITY = timedelta(hours=23)
_MAX_TRUST_BYTES = 1 << 20
_MAX_CRL_BYTES = 64 << 20
_LINK_USES = (CertificateUse.CHARGING_STATION, CertificateUse.COMBINED)


@dataclass(frozen=True, slots=True)
class Material:
    """Everything about TLS that an endpoint starts with, and may exchange while it runs."""

    context: ssl.SSLContext | None
    client_trust: ClientTrust
    identities: Sequence[TlsIdentity] = ()


@dataclass(slots=True)
class TlsLoader:
    """Makes `Material` from the options; keeps the certificates that it had issued until they are to be renewed."""

    state: GlobalState
    options: Mapping[str, Any]
    host: str
    profiles: frozenset[int]
    plans: Mapping[CertificateUse, IssuePlan]
    _issued: list[TlsIdentity] = field(default_factory=list)

    def load(self, *, renew: bool = True) -> Material:
        """Read all files and the inventory's CAs.

        Args:
            renew: whether ``--tls-ca`` issues new server certificates.

        Raises:
            click.UsageError: options that contradict each other.
            ChargePkiError: a file or CA cannot be used; nothing has changed.
        """
        # Read what others wrote before server certificates are issued: a refusal must have changed nothing.
        trust = ClientTrust()
        if 3 in self.profiles:
            is_proxied = bool(self.options["behind_proxy"])
            trust = ClientTrust(anchors=tuple(self._client_trust()), crls=tuple(self._crls()), verify=is_proxied)
        if self.profiles <= {0, 1} or self.options["behind_proxy"]:
            self._check_without_tls()
            return Material(None, trust)
        identities = self._identities(renew=renew)
        onboarding = self._onboarding() if 3 in self.profiles else []
        context = server_context(
            [SecurityProfile(number) for number in sorted(self.profiles)],
            identities,
            client_trust=[*trust.anchors, *onboarding],
            forward_secrecy_only=self.options["forward_secrecy_only"],
            # OpenSSL would refuse an expired certificate without telling whose it is; our own check names the station.
            ignore_client_validity=3 in self.profiles,
        )
        return Material(context, trust, identities)

    def files(self) -> dict[str, tuple[int, int]]:
        """Return when each file that `load` reads was changed, and its size; what is absent is left out."""
        sources = [*self.options["tls_certs"], *self.options["client_crls"], self.options["client_trust"]]
        sources += [key.file if isinstance(key, Secret) else key for key in self.options["tls_keys"]]
        found = {}
        for source in sources:
            try:
                status = os.stat(source) if source else None  # noqa: PTH116 - a name of ours, often absent
            except OSError:
                continue
            if status is not None:
                found[source] = (status.st_mtime_ns, status.st_size)
        return found

    def warn(self, material: Material) -> None:
        """Tell what is allowed and still not as it should be."""
        say = self.state.output.say
        if 0 in self.profiles:
            say(
                "warning: without a security profile anybody who knows a station's identity can speak in its name; "
                "only 1.6 stations recorded with --security-profile 0 are let in so"
            )
        if 1 in self.profiles:
            say("warning: security profile 1 sends passwords in clear text (A00.FR.201: trusted networks only)")
        named = ", ".join(self.options["allow_unsecured"])
        if named and self.profiles <= {0, 1}:
            say(printable(f"warning: certificates and roots of stations like {named} are changed without TLS"))
        elif self.plans and self.profiles <= {0, 1}:
            say(
                "warning: CSRs are refused on this port, which has no TLS; "
                "--allow-unsecured STATION lets stations have certificates all the same"
            )
        if material.context is None:
            return
        for suite in missing_suites(material.identities, forward_secrecy_only=self.options["forward_secrecy_only"]):
            kind = "an EC" if suite.startswith("ECDHE-ECDSA") else "an RSA"
            say(
                f"warning: no certificate serves the mandated suite {suite} (A00.FR.318); "
                f"to fix: add {kind} pair of --tls-cert and --tls-key"
            )
        cas = self.state.workspace.inventory.list_cas()
        roots = [ca.certificate_der for ca in cas if ca.certificate_der and not ca.issuer]
        for identity in material.identities:
            issuer = missing_issuer(identity, client_trust=material.client_trust.anchors, roots=roots)
            if issuer is not None:
                say(
                    printable(
                        f"warning: the server chain ends below {issuer}, which is no root that we know; stations that "
                        "hold the root alone cannot verify it; to fix: append the certificate of that issuer to the "
                        "--tls-cert file, unless it is the root"
                    )
                )

    def _check_without_tls(self) -> None:
        if not (self.options["tls_certs"] or self.options["tls_ca"]):
            return
        if self.options["behind_proxy"]:
            raise click.UsageError("behind a proxy TLS is the proxy's; leave out --tls-cert and --tls-ca")
        raise click.UsageError("security profile 1 has no TLS; leave out --tls-cert and --tls-ca")

    def _identities(self, *, renew: bool) -> list[TlsIdentity]:
        certs, tls_keys, tls_ca = (self.options[name] for name in ("tls_certs", "tls_keys", "tls_ca"))
        if bool(certs) == bool(tls_ca) or len(certs) != len(tls_keys):
            raise click.UsageError("pass --tls-cert with --tls-key (one pair per certificate), or --tls-ca NAME")
        if not tls_ca:
            return [_load_identity(cert, key) for cert, key in zip(certs, tls_keys, strict=True)]
        if renew or not self._issued:
            dns_names = tuple(self.options["dns_names"]) or (_host_name(self.host),)
            self._issued = server_identities(self.state.workspace, tls_ca, dns_names)
        return self._issued

    def _client_trust(self) -> list[bytes]:
        for use in _LINK_USES:
            self._check_link(use)
        path = self.options["client_trust"]
        if path:
            return _read_certificates(path)
        inventory = self.state.workspace.inventory
        trust: dict[str, bytes] = {}
        for use in _LINK_USES:
            # Every generation: a station may still hold a certificate of the one before.
            for generation in inventory.list_cas(name=self.plans[use].ca) if use in self.plans else ():
                ca = generation
                while ca.certificate_der is not None and ca.state is not CaState.REVOKED:
                    trust[ca.id] = ca.certificate_der
                    if not ca.issuer:
                        break
                    ca = inventory.get_ca(ca.issuer)
        return list(trust.values())

    def _check_link(self, use: CertificateUse) -> None:
        """Refuse to issue what stations are to connect with by a CA whose signatures no TLS here verifies."""
        ca = self.state.workspace.inventory.find_ca(self.plans[use].ca) if use in self.plans else None
        certificate = x509.load_der_x509_certificate(ca.certificate_der) if ca and ca.certificate_der else None
        if certificate is not None and has_ml_dsa_key(certificate):
            check_no_tls(certificate)

    def _crls(self) -> list[bytes]:
        found = []
        for path in self.options["client_crls"]:
            data = files.read_limited(path, _MAX_CRL_BYTES, "revocation list")
            blocks = [b.der for b in pem_blocks(data, max_bytes=_MAX_CRL_BYTES) if b.label == "X509 CRL"] or [data]
            for der in blocks:
                try:
                    x509.load_der_x509_crl(der)
                except ValueError as error:
                    raise InputError(f"{path} holds no revocation list", why=str(error)) from error
            found += blocks
        return found

    def _onboarding(self) -> list[bytes]:
        bundles = set(self.state.workspace.inventory.list_onboarding_anchors())
        return [b.der for bundle in sorted(bundles) for b in pem_blocks(bundle, max_bytes=_MAX_TRUST_BYTES)]


def _load_identity(certificate: str, key: str | Secret) -> TlsIdentity:
    if isinstance(key, Secret) and key.env is not None:
        chain = files.read_limited(certificate, _MAX_TRUST_BYTES, "TLS certificate")
        return TlsIdentity.parse(chain, key.read("the TLS key"), certificate)
    return TlsIdentity.load(Path(certificate), Path(str(key.file) if isinstance(key, Secret) else key))


def _read_certificates(path: str) -> list[bytes]:
    data = files.read_limited(path, _MAX_TRUST_BYTES, "client trust file")
    found = [block.der for block in pem_blocks(data, max_bytes=_MAX_TRUST_BYTES) if block.label == "CERTIFICATE"]
    if not found:
        raise InputError(f"{path} holds no PEM certificate", fix="write it with: chargepki ca chain NAME --out F")
    for der in found:
        try:
            x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise InputError(f"{path} holds something that is no certificate", why=str(error)) from error
    return found


def server_identities(
    workspace: Workspace,
    ca: str,
    dns_names: tuple[str, ...],
    *,
    algorithms: Sequence[KeyAlgorithm] = (KeyAlgorithm.SECP256R1, KeyAlgorithm.RSA3072),
) -> list[TlsIdentity]:
    """Issue one short-lived CSMS certificate per algorithm; the keys stay in memory.

    All mandated TLS 1.2 suites need an EC and an RSA certificate (A00.FR.318); an ``ocpp`` CA signs both.
    """
    authority = workspace.authority
    issuer = authority.open_issuer(ca)
    assert issuer.ca.certificate_der is not None
    check_no_tls(x509.load_der_x509_certificate(issuer.ca.certificate_der))  # before anything is issued
    organization = names.get(issuer.ca.subject_der, "O")
    made = []
    for algorithm in algorithms:
        private_key = keys.generate_private_key(algorithm)
        subject = (("CN", dns_names[0]), *((("O", organization),) if organization else ()))
        issued = authority.issue(
            IssueOrder(
                ca=issuer.ca.id,
                profile="ocpp/csms",
                spki=keys.spki_der(private_key.public_key()),
                subject=subject,
                validity=_SERVER_VALIDITY,
                dns_names=dns_names,
            )
        )
        made.append(TlsIdentity((*issued.chain, *_links(authority, issuer.ca)), private_key))
    return made


def _links(authority: Authority, ca: CaRecord) -> tuple[bytes, ...]:
    """Return what leads from the root above *ca* to the generations that stations may hold in its place.

    Below the newest generation these are the earlier ones. Before *ca* was moved there, it is the later one that a new
    station was given alone. Never both: a verifier that picks one of two cross-certificates does not try the other.
    """
    root = ca
    while root.issuer is not None:
        root = authority.inventory.get_ca(root.issuer)
    now = authority.now()
    return links_to_earlier(authority.inventory, root, now) or links_to_later(authority.inventory, root, now)


def _host_name(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "::1", "localhost") else host
