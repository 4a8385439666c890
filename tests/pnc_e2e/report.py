"""Compare what was foreseen with what happened, and say it in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from chargepki.pki.certificate_view import view_certificate
from chargepki.pki.errors import ChargePkiError
from chargepki.pki.provisioning.vehicle_side import open_response
from tests.pnc_e2e.defects import Defect, Plan
from tests.pnc_e2e.foresight import Foresight, Place, foresee
from tests.pnc_e2e.session import Observed, Rig
from tests.pnc_e2e.world import World

__all__ = ["Row", "judge", "table"]


_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One session."""

    name: str
    title: str
    foreseen: str
    code: str
    why: str
    happened: str
    said: str
    refused_by: str
    laxer: bool
    wrong: str
    """What is not as it should be; empty if nothing."""

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


async def judge(defect: Defect, plan: Plan, world: World, rig: Rig) -> Row:
    """Say what must happen, let it happen, and compare."""
    foreseen = foresee(plan, world)
    expected = defect.laxer or foreseen.place.value
    for _ in range(_TRIES):
        seen = await rig.run(defect.name, plan)
        place = seen.place
        if place == expected or not seen.is_late:
            break
    wrong = ""
    if defect.name == "none":
        wrong = _in_order(seen, plan, world)
    elif foreseen.place is Place.NOWHERE:
        wrong = "our validators let it pass"
    elif place != expected:
        wrong = f"stopped at {place} and not at {expected}: {seen.stopped} {seen.refused}"
    said = seen.stopped.get("vehicle", "") if place != "-" else ""
    return Row(
        defect.name,
        defect.title,
        foreseen.place.value,
        foreseen.code,
        foreseen.why,
        place,
        said,
        _refused_by(foreseen, seen, is_lax=bool(defect.laxer)),
        bool(defect.laxer),
        wrong,
    )


def _refused_by(foreseen: Foresight, seen: Observed, *, is_lax: bool) -> str:
    """Say who said no where it had to be said."""
    if foreseen.place is Place.NOWHERE:
        return ""
    if is_lax:
        # The command that says no where a simulator does not.
        verifying = "`lint`" if foreseen.code.startswith("e_") else "`cert verify --purpose secc`"
        return verifying if foreseen.place is Place.TLS else "`vehicle open`"
    if seen.refused:
        return "our CSMS" if foreseen.place is Place.CONTRACT else "our service"
    return "the vehicle" if foreseen.place in (Place.TLS, Place.RESPONSE) else "the charge point"


def _in_order(seen: Observed, plan: Plan, world: World) -> str:
    """Say what is wrong with the session that should have been in order."""
    if not seen.charged:
        return f"stopped at {seen.place}: {seen.stopped} {seen.refused}"
    if len(seen.answers) != 1:
        return f"the vehicle asked for {len(seen.answers)} contracts"
    roots = [world.ca("v2g-root")]
    try:
        ours = open_response(
            seen.answers[0], plan.vehicle.chain[0], plan.vehicle.ec_key, roots=roots, now=datetime.now(UTC)
        )
    except ChargePkiError as error:
        return f"our vehicle refuses the answer: {error}"
    point = ours.key.public_key().public_numbers()
    if seen.installed != (point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big")).hex():
        return "the simulator and we have unwrapped two keys"
    serial = f"{view_certificate(ours.chain[0]).serial:x}"
    if not world.inventory.find_certificates_by_serial(serial):
        return "the contract certificate is not in the inventory"
    return ""


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown; nothing in it depends on the run."""
    lines = [
        "| What is wrong | Must stop at | Why, as we say it | What the simulators did | Refused by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        must = "nowhere" if row.foreseen == "-" else f"`{row.foreseen}`"
        why = f"`{row.code}`" if row.code else ""
        did = "charged" if row.happened == "-" else f"stopped at `{row.happened}`"
        if row.laxer:
            did = f"**laxer:** {did}"
        lines.append(f"| {row.title} | {must} | {why} | {did} | {row.refused_by} |")
    return "\n".join(lines)
