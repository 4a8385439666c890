"""Say what to do when the tests are started without the package being installed."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("chargepki") is None or importlib.util.find_spec("chargepki.pki") is None:
    pytest.exit("chargepki is not installed in this environment; run: make setup", returncode=4)
