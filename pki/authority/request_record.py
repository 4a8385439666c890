"""Judge a request against what was issued before, and say what of the verdict is kept with the certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from chargepki.pki.errors import PolicyRefusal
from chargepki.pki.inventory import Inventory, Transaction
from chargepki.pki.inventory.reads import MOST_OF_A_KEY
from chargepki.pki.policy import Outcome, RuleVerdict
from chargepki.pki.policy_record import Asking, judge_rate, judge_same_key, judge_secrecy
from chargepki.pki.policy_settings import PolicySettings

__all__ = ["check_accepted", "judge_on_record", "stored_verdicts"]


def judge_on_record(
    reader: Inventory | Transaction, asking: Asking, key_sha256: str, policy: PolicySettings, *, now: datetime
) -> tuple[RuleVerdict, ...]:
    """Return the verdicts of the rules that look at what was issued before.

    Args:
        key_sha256: of the SubjectPublicKeyInfo, lower-case hex.
    """
    issued = None
    if policy.rate is not None and asking.station is not None:
        issued = reader.count_certificates_of_station(asking.station, now - policy.rate.window)
    others = reader.list_certificates_of_key(key_sha256)
    # Only the newest are listed; one that was compromised counts however old it is.
    older = reader.find_compromised(key_sha256) if len(others) >= MOST_OF_A_KEY else None
    return (
        *judge_secrecy((*others, older) if older else others),
        *judge_same_key(asking, others, policy, now=now),
        *judge_rate(issued, policy),
    )


def stored_verdicts(rules: Sequence[RuleVerdict]) -> Iterator[str | dict[str, str]]:
    """Yield what is stored of *rules*: every certificate has a row, so of one that passed its name must do."""
    for rule in rules:
        yield rule.rule if rule.outcome is Outcome.PASS else rule.to_json()


def check_accepted(rules: Sequence[RuleVerdict]) -> None:
    """Refuse what a rule refuses.

    Raises:
        PolicyRefusal: with every refusal, its clause and its cure.
    """
    refused = [rule for rule in rules if rule.outcome is Outcome.REFUSE]
    if refused:
        raise PolicyRefusal(
            "the request is refused: " + "; ".join(rule.message for rule in refused),
            why="; ".join(f"{rule.rule} ({rule.clause})" for rule in refused),
            fix="; ".join(dict.fromkeys(rule.fix for rule in refused if rule.fix)),
        )
