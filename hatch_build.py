"""Build hook: lay the package folders out under their import name for editable installs.

Hatchling refuses an editable install whose sources add a prefix (`pki` -> `chargepki/pki`), so this hook makes
`.editable/chargepki/<folder>` links, and `dev-mode-dirs` puts `.editable` on the import path. The links are never
committed: an sdist that contains them loses packages without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("pki", "ocpp_security", "cli")


class LinkPackageFolders(BuildHookInterface[BuilderConfig]):
    """Create the links of an editable install; do nothing for a wheel or an sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the links when *version* is ``editable``; existing right links stay untouched."""
        if version != "editable":
            return
        root = Path(self.root)
        package = root / ".editable" / "chargepki"
        package.mkdir(parents=True, exist_ok=True)
        for folder in FOLDERS:
            link = package / folder
            if link.is_symlink() and link.resolve() == (root / folder).resolve():
                continue
            link.unlink(missing_ok=True)
            link.symlink_to(Path("..") / ".." / folder, target_is_directory=True)
