"""RFC 5280 and 6960: what a certificate is for: purposes, policies, OCSP signers, names of test PKIs, keys apart."""

from __future__ import annotations

from typing import Final

from chargepki.pki import oids
from chargepki.pki.lint.engine import CertificateContext, Needs, Problem, Verdict, rule
from chargepki.pki.lint.standards import has_bits, pointer_names
from chargepki.pki.profiles.base import KeyUsageBit, RoleKind


@rule(
    "w_eku_on_ca",
    "ISO 15118-20 Amendment 1; field reports",
    "a CA has no ExtendedKeyUsage",
    hint="leave it out: TLS stacks refuse chains whose CAs restrict purposes",
    applies=("ca",),
    where="tbsCertificate.extensions.extendedKeyUsage",
    unverified="Annex F does not list ExtendedKeyUsage for CAs; the cells themselves are not public",
)
def eku_on_ca(context: CertificateContext) -> Verdict:
    """Seen as 'unsuitable certificate purpose'."""
    return "a CA has an ExtendedKeyUsage" if context.view.extension(oids.EXTENDED_KEY_USAGE) is not None else None


@rule(
    "w_cn_role_name",
    "field reports (test PKIs)",
    "the CN is no placeholder of a test PKI",
    hint="use the identifier that the profile asks for",
    applies=("leaf",),
    where="tbsCertificate.subject",
)
def cn_role_name(context: CertificateContext) -> Verdict:
    """Names that public sample PKIs give their leaves."""
    name = context.view.common_name
    return f"CN {name!r} is a placeholder" if name.lower() in _ROLE_NAMES else None


_ROLE_NAMES: Final = frozenset(
    {"secccert", "oemprovcert", "cpsleafcert", "moleafcert", "contractcert", "provserviceleaf", "vehiclecert", "test"}
)


@rule(
    "n_policy_any",
    "RFC 5280 4.2.1.4",
    "an end entity names its policy",
    hint="name a policy of the issuing PKI",
    applies=("leaf",),
    where="tbsCertificate.extensions.certificatePolicies",
)
def policy_any(context: CertificateContext) -> Verdict:
    """AnyPolicy says nothing in a leaf."""
    policies = context.view.known.policies
    return "the leaf asserts anyPolicy" if policies and oids.ANY_POLICY in policies else None


_PLACEHOLDER_ARCS: Final = ("1.3.6.1.4.1.99999.", "1.3.6.1.4.1.7244.", "2.999.")


@rule(
    "w_policy_placeholder",
    "field reports (test PKIs)",
    "certificate policies are registered",
    hint="use an OID of your own arc",
    where="tbsCertificate.extensions.certificatePolicies",
)
def policy_placeholder(context: CertificateContext) -> Verdict:
    """1.3.6.1.4.1.99999 is nobody's, 7244 is what test tools write; 2.999 is the example arc of X.660."""
    return [
        Problem(f"policy {policy} is a placeholder")
        for policy in context.view.known.policies or ()
        if f"{policy}.".startswith(_PLACEHOLDER_ARCS)
    ]


@rule(
    "w_ocsp_nocheck",
    "RFC 6960 4.2.2.2.1",
    "an OCSP signer says how its own revocation is checked",
    hint="add id-pkix-ocsp-nocheck, non-critical",
    applies=("ocsp-signer",),
    where="tbsCertificate.extensions",
)
def ocsp_nocheck(context: CertificateContext) -> Verdict:
    """Either the no-check extension or a pointer; the former is not critical."""
    view = context.view
    extension = view.extension(oids.OCSP_NO_CHECK)
    if extension is None:
        return None if pointer_names(view) else "neither id-pkix-ocsp-nocheck nor a revocation pointer"
    return "id-pkix-ocsp-nocheck is critical" if extension.critical else None


@rule(
    "e_ocsp_signer_eku",
    "RFC 6960 4.2.2.2",
    "a delegated OCSP signer has id-kp-OCSPSigning and digitalSignature",
    hint="issue it under common/ocsp-signer",
    applies=("ocsp-signer",),
    where="tbsCertificate.extensions.extendedKeyUsage",
)
def ocsp_signer_eku(context: CertificateContext) -> Verdict:
    """Without it every client rejects the answers."""
    view = context.view
    if oids.EKU_OCSP_SIGNING not in (view.known.extended_key_usage or ()):
        return "ExtendedKeyUsage lacks id-kp-OCSPSigning"
    return None if has_bits(view, KeyUsageBit.DIGITAL_SIGNATURE) else "keyUsage lacks digitalSignature"


@rule(
    "e_leaf_key_equals_ca_key",
    "key separation",
    "a certificate does not carry its issuer's key",
    hint="make a key of its own",
    where="tbsCertificate.subjectPublicKeyInfo",
    needs=Needs(issuer=True),
)
def leaf_key_equals_ca_key(context: CertificateContext) -> Verdict:
    """A self-signed root, and a CA's own new certificate, have the same name as well."""
    view, issuer = context.view, context.issuer
    if issuer is None or view.key.der != issuer.key.der or view.subject == issuer.subject:
        return None
    if context.profile is not None and context.profile.kind is RoleKind.CROSS:
        return None
    return "the certificate has the public key of its issuer"
