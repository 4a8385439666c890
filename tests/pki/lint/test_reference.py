"""Every rule has a page in the reference, and the pages say what the code says."""

from __future__ import annotations

from chargepki.pki.lint import all_rules
from testkit.layout import ROOT
from tools.make_reference import lint_pages

FOLDER = ROOT / "docs" / "reference"


def test_the_page_of_every_rule_is_up_to_date() -> None:
    committed = {f"lint/{path.name}": path.read_text(encoding="utf-8") for path in (FOLDER / "lint").glob("*.md")}
    assert committed == lint_pages(), "run: make reference"


def test_every_rule_has_a_page_that_names_its_clause_and_cure() -> None:
    pages = lint_pages()
    for rule in all_rules():
        page = pages[f"lint/{rule.id}.md"]
        assert rule.hint in page
        assert rule.clause.replace("|", "\\|") in page
        assert f"`{rule.id}-breaks-1` breaks it" in page or f"-{rule.id}-breaks-1` breaks it" in page
