"""Whether a certificate fits the message that would bring it to its station."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.pem import pem_characters
from chargepki.pki.template import largest_certificate

__all__ = ["check_deliverable"]

_MOST_CHARACTERS: Final = 10_000


def check_deliverable(tbs_bytes: int, issuer_algorithm: KeyAlgorithm, chain: Sequence[bytes]) -> None:
    """Refuse a certificate that no message could bring to its station, before it is signed.

    Args:
        tbs_bytes: length of what will be signed.
        chain: DER of the issuing CAs, without the root.

    Raises:
        PolicyRefusal: with its chain it may be longer than the field.

    Clause: OCPP CertificateSigned.certificateChain, 10000 characters in every version.
    """
    sizes = (largest_certificate(tbs_bytes, issuer_algorithm), *map(len, chain))
    characters = sum(map(pem_characters, sizes))
    if characters > _MOST_CHARACTERS:
        raise PolicyRefusal(
            f"certificate and chain could take {characters} characters of PEM, a station takes {_MOST_CHARACTERS}",
            why="CertificateSigned.certificateChain is limited by its schema, in every version of OCPP",
            fix="issue from a CA with a smaller key and signature, or bring the certificate to the station by hand",
        )
