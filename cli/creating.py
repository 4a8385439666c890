"""What ``ca create`` and ``ca create-hierarchy`` do before and around the authority: judge, rehearse, show."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chargepki.cli.cautions import ca_warnings
from chargepki.cli.globals import GlobalState
from chargepki.cli.progress import progress
from chargepki.pki.authority import CaOrder, utc_now
from chargepki.pki.authority.creation import adopt_key, preview_ca
from chargepki.pki.authority.hierarchy import create_hierarchy
from chargepki.pki.authority.issuance import Issuer
from chargepki.pki.errors import NotFound
from chargepki.pki.inventory.records import CaRecord, CaState
from chargepki.pki.keys import KeyAlgorithm
from chargepki.pki.template import Criticality
from chargepki.pki.workspace import Workspace

__all__ = ["HierarchyOrder", "MadeHierarchy", "create_all", "judge_new_ca", "rehearse_hierarchy", "show_preview"]


def judge_new_ca(state: GlobalState, order: CaOrder) -> None:
    """Refuse *order* before the workspace is created for it; in an existing one `create_ca` judges first anyway.

    Raises:
        ChargePkiError: as `Authority.create_ca`.
    """
    if not state.workspace.exists:
        _preview(state, order)


def show_preview(state: GlobalState, order: CaOrder) -> None:
    """Print the certificate that *order* would have; nothing is written."""
    from chargepki.cli.describing import describe_tbs

    state.output.fields("chargepki/certificate-preview", describe_tbs(_preview(state, order), profile=order.profile))


def _preview(state: GlobalState, order: CaOrder) -> bytes:
    workspace = state.workspace
    order = adopt_key(order, workspace.keystore)
    url, now = state.settings.public_url, utc_now()
    if not workspace.exists:
        return preview_ca(order, inventory=None, open_issuer=_no_issuer, now=now, public_url=url)
    opener = workspace.authority.open_issuer
    return preview_ca(order, inventory=workspace.inventory, open_issuer=opener, now=now, public_url=url)


def _no_issuer(name: str) -> Issuer:
    raise NotFound(f"there is no CA {name}", why="this workspace is new", fix="create its root first")


@dataclass(frozen=True, slots=True)
class HierarchyOrder:
    """All CAs of a standard."""

    standard: str
    prefix: str
    organization: str
    country: str
    algorithm: KeyAlgorithm | None
    criticality: Criticality


@dataclass(frozen=True, slots=True)
class MadeHierarchy:
    """The CAs of a standard, issuers first; how many of them were there before; what the linter says about each."""

    records: list[CaRecord]
    existed: int
    warnings: list[list[dict[str, Any]]]


def create_all(state: GlobalState, workspace: Workspace, order: HierarchyOrder) -> MadeHierarchy:
    """Create the CAs of *order* in *workspace* under a progress bar."""
    inventory = workspace.inventory
    before = {record.id for record in inventory.list_cas() if record.state is CaState.ACTIVE}
    with progress(state, f"creating the {order.standard} hierarchy") as advance:
        records = create_hierarchy(
            workspace.authority,
            order.standard,
            prefix=order.prefix,
            organization=order.organization,
            country=order.country,
            algorithm=order.algorithm,
            criticality=order.criticality,
            progress=advance,
        )
    existed = sum(record.id in before for record in records)
    return MadeHierarchy(records, existed, [ca_warnings(inventory, record) for record in records])


def rehearse_hierarchy(state: GlobalState, order: HierarchyOrder) -> MadeHierarchy:
    """Create the CAs of *order* with throw-away keys in a temporary workspace, and return what was made."""
    with tempfile.TemporaryDirectory(prefix="chargepki-") as folder:
        home = Path(folder) / "workspace"
        settings = replace(state.settings, home=home, publish_dir=None, key_token=None)
        settings = replace(settings, database=f"sqlite:///{home / 'inventory.db'}")
        passphrase = secrets.token_hex(16).encode()
        workspace = Workspace(settings, passphrase=lambda: passphrase)
        try:
            return create_all(state, workspace, order)
        finally:
            workspace.close()
