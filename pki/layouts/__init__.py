"""Folders that other charging stacks start with, laid out from our certificates and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from chargepki.pki.layouts.base import LayoutFile, Material, Role
from chargepki.pki.layouts.csms import lay_out_citrineos, lay_out_maeve
from chargepki.pki.layouts.ecog import lay_out_ecog
from chargepki.pki.layouts.everest import lay_out_everest

__all__ = ["CA_KEYS", "Layout", "LayoutFile", "Material", "Role", "lay_out"]


class Layout(StrEnum):
    """Whose folder it is."""

    ECOG = "ecog-iso15118"
    """The simulators of EcoG-io/iso15118 (PyPI's ``iso15118``, formerly Josev)."""
    EVEREST = "everest"
    MAEVE = "maeve"
    CITRINEOS = "citrineos"


_LAYOUTS: Final[Mapping[Layout, Callable[[Material], tuple[LayoutFile, ...]]]] = {
    Layout.ECOG: lay_out_ecog,
    Layout.EVEREST: lay_out_everest,
    Layout.MAEVE: lay_out_maeve,
    Layout.CITRINEOS: lay_out_citrineos,
}
CA_KEYS: Final[Mapping[Layout, frozenset[Role]]] = {
    Layout.ECOG: frozenset(),
    Layout.EVEREST: frozenset(),
    Layout.MAEVE: frozenset(),
    Layout.CITRINEOS: frozenset({Role.CSO_SUB}),
}
"""The CAs whose keys a layout contains: CitrineOS signs the certificates of its stations itself."""


def lay_out(layout: Layout, material: Material) -> tuple[LayoutFile, ...]:
    """Return the files of a folder, to be written below it.

    Raises:
        StateError: the stack could not start with what there is; names everything that is missing.
    """
    return _LAYOUTS[layout](material)
