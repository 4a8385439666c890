"""Answer a vehicle's request for its contract: judge, choose, record, issue, wrap, sign, record, release.

An answer is on record as begun before a key is made, the certificate's serial before its CA signs (`Authority`), and
the response before it leaves. Whatever crashes in between leaves a begun answer: the same request is answered anew, and
`Provisioner.recover` revokes what was issued for the interrupted one, whose key nobody has any more.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x448

from chargepki.pki import keys, names
from chargepki.pki.authority import Authority, IssuedCertificate, IssueOrder
from chargepki.pki.authority.issuance import prepare
from chargepki.pki.authority.revocation import revoke_within
from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.contract_keys import (
    CBC_IV_BYTES,
    GCM_IV_BYTES,
    WrapForm,
    WrappedKey,
    additional_data,
    wrap_ec_key,
    wrap_x448_key,
)
from chargepki.pki.crl_entry import ReasonCode
from chargepki.pki.errors import ChargePkiError, PolicyRefusal, StateError
from chargepki.pki.exi import MessageSet
from chargepki.pki.inventory import Transaction
from chargepki.pki.inventory.contract_records import (
    ContractRecord,
    ProvisioningRecord,
    ProvisioningState,
)
from chargepki.pki.inventory.records import CertificateState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.profiles import get_profile
from chargepki.pki.provisioning.agreement import algorithm_of, standard_of_key
from chargepki.pki.provisioning.anchors import choose_signer, contract_paths, roots_held
from chargepki.pki.provisioning.choosing import Channel, NoContract, check_standing, list_choices
from chargepki.pki.provisioning.contracts import list_live
from chargepki.pki.provisioning.cps import CpsSigner, CpsSource, standard_of
from chargepki.pki.provisioning.judgement import Examined, examine
from chargepki.pki.provisioning.request import verify_request
from chargepki.pki.provisioning.response import (
    AnswerTooLong,
    Content,
    base64_characters,
    build_response,
    check_fits,
    readdress,
    signing_leaf,
)
from chargepki.pki.provisioning.rounds import Turn, next_turn
from chargepki.pki.provisioning.trust import Question, Standing
from chargepki.pki.role_roots import Roots
from chargepki.pki.template import largest_certificate

__all__ = ["INTERRUPTED_AFTER", "Answer", "Channel", "NoContract", "Provisioner", "Replayed"]

INTERRUPTED_AFTER: Final = timedelta(minutes=5)
"""An answer that is begun for so long is held for interrupted."""
_MOST_LIVE: Final = 12
"""Certificates of one contract in one vehicle; one that asks more often is broken."""
_SLACK: Final = 16
"""Bytes by which certificates of one CA differ: longer numbers in a URL, an EMAID with a check digit."""

_FORMS: Final = {
    KeyAlgorithm.SECP256R1: WrapForm.ISO15118_2,
    KeyAlgorithm.SECP521R1: WrapForm.SECP521,
    KeyAlgorithm.ED448: WrapForm.X448,
}


class Replayed(PolicyRefusal):
    """A request that was answered before, and whose answer is worth nothing any more."""

    code = "replayed"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is durable."""

    exi: bytes
    contract: str
    """EMAID."""
    certificate: str
    """``CA:SERIAL``."""
    remaining: int
    """How many further contracts the same request brings (ISO 15118-20)."""
    repeated: bool
    """Whether it had been given before."""


@dataclass(frozen=True, slots=True)
class _Making:
    """What one answer is made with."""

    examined: Examined
    contract: ContractRecord
    turn: Turn
    row: str
    cps: CpsSigner
    above: tuple[bytes, ...]
    """The chain above the contract certificate (DER), its CA first."""
    channel: Channel


@dataclass(slots=True)
class _Known:
    """What one process remembers."""

    recovered_at: datetime
    largest: dict[str, int] = field(default_factory=dict)
    """The most bytes that a certificate of a CA can have."""


class Provisioner:
    """The provisioning of contracts; may be used by many threads, and by many processes on one inventory.

    Example:
        provisioner = Provisioner(authority, ["acme-mo-sub2"], [IssuedCps(authority, "acme-cps-sub2")])
        answer = provisioner.provision(provisioner.examine(exi))

    Args:
        contract_cas: names of the CAs that issue contract certificates, at most one of each standard and algorithm. A
            contract has a key of the algorithm that the vehicle's provisioning certificate has, and so has its CA; one
            with an Ed448 key allows contracts whose key travels as a scalar (`wrap_x448_key`).
        cps: whose signatures vehicles believe; of several of one standard, the one that leads to a root of the vehicle.

    Raises:
        NotFound: no such CA.
        PolicyRefusal: a CA that issues no contracts, or a second one of a standard.
    """

    def __init__(self, authority: Authority, contract_cas: Sequence[str], cps: Sequence[CpsSource]) -> None:
        self._authority, self._inventory, self._cps = authority, authority.inventory, tuple(cps)
        self._roots, self._known = Roots(authority.inventory), _Known(authority.now())
        self._cas: dict[KeyAlgorithm, str] = {}
        for ca in contract_cas:
            record = self._inventory.get_ca(ca)
            profile = record.profile
            if not profile.endswith(("/mo-sub2", "/emsp-sub2")):
                raise PolicyRefusal(
                    f"CA {ca} has the profile {profile}, and issues no contract certificates",
                    fix="name a CA of a profile …/mo-sub2 or …/emsp-sub2",
                )
            algorithm = keys.algorithm_of(keys.load_public_key(view_certificate(record.certificate_der or b"").key.der))
            if standard_of_key(algorithm) is not standard_of(profile):
                raise PolicyRefusal(
                    f"CA {ca} has a key of {algorithm.value}, with which contracts of its standard cannot be issued",
                    why="contract and CA share the curve of the vehicle's provisioning certificate (V2G20-2709)",
                    fix="name a CA with a key on secp256r1 for -2, on secp521r1 or Ed448 for -20",
                )
            if algorithm in self._cas:
                raise PolicyRefusal(f"{self._cas[algorithm]} and {ca} are both for {algorithm.value}", fix="name one")
            self._cas[algorithm] = ca

    # -- judging ---------------------------------------------------------------------------------------------------

    def examine(self, exi: bytes) -> Examined:
        """Judge a request as far as our own records go; nothing is written, nobody is asked.

        Raises:
            InputError: it is malformed, or its signature does not hold.
            ChargePkiError: as `judgement.examine` says.
        """
        return examine(verify_request(exi), self._inventory, self._roots, self._authority.now())

    def provision(
        self,
        examined: Examined,
        *,
        standings: Mapping[Question, Standing] | None = None,
        channel: Channel | None = None,
    ) -> Answer:
        """Answer a request, durably.

        The same signed request brings the same certificate again as long as that is good, whatever session it is for;
        in -20 it brings one contract after the other (`rounds`).

        Args:
            standings: what was learnt about `Examined.questions`.

        Raises:
            RevocationError: a certificate of the vehicle is revoked, or its status is not known.
            NoContract: nothing is offered to the vehicle.
            NoCommonRoot: the vehicle could not verify the provisioning service by any root that it names.
            Replayed: its answer was given before and is worth nothing any more.
            AnswerTooLong: the station could not carry it; nothing was made.
            ChargePkiError: the authority refuses.
        """
        channel = channel or Channel()
        self._recover_now_and_then()
        if examined.request.message_set is MessageSet.ISO15118_20 and examined.vehicle is not None:
            additional_data(examined.vehicle, bytes(8))  # refuses a PCID that could not be authenticated
        for question in examined.questions:
            check_standing(question, (standings or {}).get(question, Standing.UNKNOWN))
        choices = list_choices(self._inventory, examined, channel, self._authority.now())
        held = roots_held(self._inventory, examined.request.roots)
        signer = self._signer(examined, held)
        above = self._fitting(examined, choices, signer, held, channel)
        claimed = self._inventory.write(lambda tx: self._claim(tx, examined, choices, channel))
        if isinstance(claimed, Answer):
            return claimed
        turn, row = claimed
        making = _Making(examined, choices[turn.contract], turn, row, signer, above, channel)
        issued: IssuedCertificate | None = None
        try:
            key = keys.generate_private_key(algorithm_of(examined.recipient))
            issued = self._authority.issue(self._order(making, key))
            response = self._respond(making, issued, key)
            del key  # the last reference: OpenSSL clears its copy
            return self._release(making, issued, response)
        except ChargePkiError:
            # What cannot be given up now is found by `recover`.
            with contextlib.suppress(ChargePkiError):
                self._give_up(row, issued.record.id if issued is not None else None)
            raise

    def recover(self) -> int:
        """Give up answers that were interrupted, and revoke what was issued for them; return how many there were."""
        before = self._authority.now() - INTERRUPTED_AFTER
        interrupted = self._inventory.list_interrupted_provisionings(before)
        for row in interrupted:
            found = self._inventory.find_certificate_by_request_key(f"id:{_request_id(row.id)}")
            issued = found is not None and found.state is CertificateState.ISSUED
            self._give_up(row.id, found.id if found is not None and issued else None)
        return len(interrupted)

    def _recover_now_and_then(self) -> None:
        now = self._authority.now()
        if now - self._known.recovered_at >= INTERRUPTED_AFTER:
            self._known.recovered_at = now
            self.recover()

    # -- choosing --------------------------------------------------------------------------------------------------

    def _signer(self, examined: Examined, held: Sequence[bytes]) -> CpsSigner:
        """Return the signer that the vehicle can verify."""
        message_set = examined.request.message_set
        signers = [source.signer() for source in self._cps if source.message_set is message_set]
        algorithm = algorithm_of(examined.recipient)
        if signers and message_set in map(standard_of_key, self._cas) and algorithm not in self._cas:
            raise StateError(
                f"no contracts with keys of {algorithm.value} are provisioned here",
                why="a contract shares the curve of the provisioning certificate, or there is none (V2G20-2709)",
                fix=f"name a CA whose key is {algorithm.value}, or let the vehicle ask with its other certificate",
            )
        if not signers or algorithm not in self._cas:
            raise StateError(
                f"no contracts of {message_set.value} are provisioned here",
                why="that takes a CA for contracts and a provisioning service of this standard",
                fix="name both, say: --contract-ca CA --cps-ca CA",
            )
        return choose_signer(self._inventory, signers, examined.request.roots, held, self._authority.now())

    def _fitting(
        self,
        examined: Examined,
        choices: Mapping[str, ContractRecord],
        signer: CpsSigner,
        held: Sequence[bytes],
        channel: Channel,
    ) -> tuple[bytes, ...]:
        """Return the best chain above the contract certificate with which the answer fits."""
        issuer = self._authority.open_issuer(self._cas[algorithm_of(examined.recipient)])
        message_set = examined.request.message_set
        *better, usual = contract_paths(self._inventory, issuer.chain, message_set, held, self._authority.now())
        for chain in better:
            # One certificate more may be one too many for the station, which then gets the usual chain.
            with contextlib.suppress(AnswerTooLong):
                self._check_size(examined, choices, signer, chain, channel)
                return chain
        self._check_size(examined, choices, signer, usual, channel)
        return usual

    def _check_size(
        self,
        examined: Examined,
        choices: Mapping[str, ContractRecord],
        signer: CpsSigner,
        above: tuple[bytes, ...],
        channel: Channel,
    ) -> None:
        request = examined.request
        algorithm = algorithm_of(examined.recipient)
        issuer = self._authority.open_issuer(self._cas[algorithm])
        emaid = max((each.emaid for each in choices.values()), key=len)
        if issuer.ca.id not in self._known.largest:
            dummy = keys.generate_private_key(algorithm)
            order = self._plain_order(algorithm, emaid, keys.spki_der(dummy))
            item = prepare(order, issuer, self._inventory, actor=self._authority.actor, now=self._authority.now())
            assert item.record.tbs is not None
            self._known.largest[issuer.ca.id] = largest_certificate(len(item.record.tbs), issuer.signer.algorithm)
        largest = min(
            self._known.largest[issuer.ca.id] + _SLACK,
            get_profile(self._profile(algorithm)).max_der_bytes or 1 << 16,
        )
        content = Content(
            request.message_set,
            request.kind,
            above,
            signer.chain,
            WrappedKey(_FORMS[algorithm], b"", b""),
            emaid,
        )
        check_fits(content, largest, signer.key.public_key(), characters=channel.characters, carrier=channel.carrier)

    def _claim(
        self, tx: Transaction, examined: Examined, choices: Mapping[str, ContractRecord], channel: Channel
    ) -> Answer | tuple[Turn, str]:
        """Give out an earlier answer, or record that one is begun."""
        request, now = examined.request, self._authority.now()
        answers = tx.list_answers_to(request.identity)
        turn = next_turn(answers, list(choices), now)
        earlier = [
            each for each in answers if each.contract == turn.contract and each.state is ProvisioningState.ANSWERED
        ]
        if earlier:
            if self._is_good(tx, earlier[-1], now):
                return self._tell(tx, earlier[-1], examined, choices[turn.contract], turn)
            offers = tx.list_offers_of(turn.contract)
            offered = max((each.offered_at for each in offers if each.vehicle == examined.vehicle), default=None)
            if offered is None or offered <= earlier[-1].began_at:
                raise Replayed(
                    f"this request was answered on {earlier[-1].began_at:%Y-%m-%d}, and is no longer good for anything",
                    why="its certificate has ended since; whoever recorded the request could send it again",
                    fix="the vehicle signs a new request; or, to let it ask with this one once more: "
                    f"chargepki contract offer {choices[turn.contract].emaid} --vehicle {examined.vehicle}",
                )
        live = list_live(tx, turn.contract, now)
        if len(live) >= _MOST_LIVE:
            raise PolicyRefusal(
                f"{len(live)} certificates of contract {choices[turn.contract].emaid} are valid already",
                why="a vehicle that asks again and again does not keep what it gets",
                fix=f"chargepki contract revoke {choices[turn.contract].emaid} --superseded, and look at the vehicle",
            )
        row = ProvisioningRecord(
            id=f"{turn.contract}/{len(tx.list_provisionings(turn.contract)) + 1:06d}",
            request=request.identity,
            kind=request.kind.value,
            standard=request.message_set.value,
            contract=turn.contract,
            vehicle=examined.vehicle,
            station=channel.station,
            state=ProvisioningState.BEGUN,
            began_at=now,
        )
        tx.begin_provisioning(row)
        details = {"vehicle": examined.vehicle, "station": channel.station, "kind": row.kind}
        tx.audit(self._authority.actor, "contract.begin", row.id, now=now, details=details)
        return turn, row.id

    def _is_good(self, tx: Transaction, row: ProvisioningRecord, now: datetime) -> bool:
        """Say whether an answer would still be believed: its certificate, and who signed it."""
        assert row.certificate is not None and row.response is not None
        record = tx.get_certificate(row.certificate)
        if record.state is not CertificateState.ISSUED or record.not_after <= now:
            return False
        leaf = x509.load_der_x509_certificate(signing_leaf(row.response, MessageSet(row.standard)))
        return leaf.not_valid_after_utc > now

    def _tell(
        self, tx: Transaction, row: ProvisioningRecord, examined: Examined, contract: ContractRecord, turn: Turn
    ) -> Answer:
        request, now = examined.request, self._authority.now()
        assert row.response is not None and row.certificate is not None
        tx.tell_provisioning(row.id, round=turn.round, now=now)
        tx.audit(self._authority.actor, "contract.tell", row.id, now=now, details={"round": turn.round})
        exi = readdress(
            row.response, request.message_set, session_id=request.session_id, remaining=turn.remaining, now=now
        )
        return Answer(exi, contract.emaid, row.certificate, turn.remaining, repeated=True)

    # -- making ----------------------------------------------------------------------------------------------------

    def _profile(self, algorithm: KeyAlgorithm) -> str:
        profile = self._inventory.get_ca(self._cas[algorithm]).profile
        return f"{profile.partition('/')[0]}/contract"

    def _plain_order(self, algorithm: KeyAlgorithm, emaid: str, spki: bytes) -> IssueOrder:
        ca = self._inventory.get_ca(self._cas[algorithm])
        organization = names.get(ca.subject_der, "O")
        subject = (("CN", emaid), *((("O", organization),) if organization else ()))
        return IssueOrder(ca.id, self._profile(algorithm), spki=spki, subject=subject)

    def _order(self, making: _Making, key: keys.PrivateKey) -> IssueOrder:
        algorithm, ends_at = algorithm_of(making.examined.recipient), making.contract.ends_at
        order = self._plain_order(algorithm, making.contract.emaid, keys.spki_der(key))
        validity = None
        if ends_at is not None:
            left = ends_at - self._authority.now()
            validity = min(left, get_profile(order.profile).validity.default)
        return replace(order, validity=validity, request_id=_request_id(making.row))

    def _respond(self, making: _Making, issued: IssuedCertificate, key: keys.PrivateKey) -> bytes:
        request, now = making.examined.request, self._authority.now()
        wrapped = _wrap(key, making.examined)
        content = Content(
            request.message_set,
            request.kind,
            (issued.certificate_der, *making.above),
            making.cps.chain,
            wrapped,
            making.contract.emaid,
            making.turn.remaining,
        )
        response = build_response(content, making.cps.key, session_id=request.session_id, now=now)
        if base64_characters(len(response)) > making.channel.characters:
            raise AnswerTooLong(
                f"the answer has {base64_characters(len(response))} characters of base64; "
                f"{making.channel.carrier} carries {making.channel.characters}"
            )
        return response

    def _release(self, making: _Making, issued: IssuedCertificate, response: bytes) -> Answer:
        """Record the response; when another process was faster with the same request, give out its answer."""
        now, authority = self._authority.now(), self._authority

        def work(tx: Transaction) -> Answer:
            rivals = [
                each
                for each in tx.list_answers_to(making.examined.request.identity)
                if each.contract == making.contract.id
                and each.state is ProvisioningState.ANSWERED
                and self._is_good(tx, each, now)
            ]
            if rivals:
                self._void(tx, making.row, issued.record.id)
                return self._tell(tx, rivals[-1], making.examined, making.contract, making.turn)
            tx.finish_provisioning(
                making.row, certificate=issued.record.id, response=response, round=making.turn.round, now=now
            )
            details = {"certificate": issued.record.id, "vehicle": making.examined.vehicle}
            tx.audit(authority.actor, "contract.provision", making.row, now=now, details=details)
            return Answer(response, making.contract.emaid, issued.record.id, making.turn.remaining, repeated=False)

        return self._inventory.write(work)

    def _give_up(self, row: str, certificate: str | None) -> None:
        self._inventory.write(lambda tx: self._void(tx, row, certificate))

    def _void(self, tx: Transaction, row: str, certificate: str | None) -> None:
        """Give up an answer that was begun; what was issued for it is revoked, since nobody has its key."""
        now, actor = self._authority.now(), self._authority.actor
        record = tx.find_provisioning(row)
        if record is None or record.state is not ProvisioningState.BEGUN:
            return
        tx.void_provisioning(row, certificate)
        tx.audit(actor, "contract.void", row, now=now, details={"certificate": certificate})
        if certificate is not None:
            code = ReasonCode.CESSATION_OF_OPERATION
            revoke_within(tx, certificate, code, actor=actor, now=now, revoked_at=now)


def _wrap(key: keys.PrivateKey, examined: Examined) -> WrappedKey:
    """Wrap a contract key for the vehicle, with an ephemeral key and an initialisation vector that are made here."""
    recipient, aad = examined.recipient, b""
    if examined.request.message_set is MessageSet.ISO15118_20:
        assert examined.vehicle is not None
        aad = additional_data(examined.vehicle, keys.key_identifier(keys.spki_der(key), 8))
    if isinstance(recipient, x448.X448PublicKey):
        assert isinstance(key, ed448.Ed448PrivateKey)
        once, iv = x448.X448PrivateKey.generate(), secrets.token_bytes(GCM_IV_BYTES)
        return wrap_x448_key(key, recipient, ephemeral=once, iv=iv, aad=aad)
    form = _FORMS[algorithm_of(recipient)]
    ephemeral = ec.generate_private_key(recipient.curve)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    iv = secrets.token_bytes(CBC_IV_BYTES if form is WrapForm.ISO15118_2 else GCM_IV_BYTES)
    return wrap_ec_key(key, recipient, form=form, ephemeral=ephemeral, iv=iv, aad=aad)


def _request_id(row: str) -> str:
    return f"contract {row}"
