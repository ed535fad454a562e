"""The documentation names every verb with its options, every target key and every table column."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgeofa.cli.main import command
from edgeofa.spaces import Space
from edgeofa.tables.table import Additivity, Header, Row
from edgeofa.targets import Target

DOCS = Path(__file__).resolve().parents[1] / "docs"
README = DOCS.parent / "README.md"


def _verbs() -> list[tuple[str, object]]:
    """Every leaf command: ("table diff", command)."""
    found: list[tuple[str, object]] = []

    def walk(prefix: str, group: object) -> None:
        for name, sub in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(sub, "commands"):
                walk(f"{prefix}{name} ", sub)
            else:
                found.append((prefix + name, sub))

    walk("", command())
    return found


@pytest.mark.parametrize("verb", [name for name, _ in _verbs()])
def test_every_verb_has_a_page_that_names_its_options(verb: str) -> None:
    page = DOCS / "verbs" / f"{verb.split()[0]}.md"
    assert page.is_file(), f"docs/verbs/{page.name} is missing"
    text = page.read_text(encoding="utf-8")
    assert f"edgeofa {verb}" in text
    sub = dict(_verbs())[verb]
    for parameter in sub.params:  # type: ignore[attr-defined]
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in text, f"{page.name} does not name {option} of {verb}"


@pytest.mark.parametrize("verb", [name for name, _ in _verbs()])
def test_every_verb_answers_in_json(verb: str) -> None:
    options = {o for p in dict(_verbs())[verb].params for o in p.opts}  # type: ignore[attr-defined]
    assert "--json" in options


def _keys(model: type[BaseModel]) -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                keys |= _keys(part)
    return keys


@pytest.mark.parametrize(("model", "page"), [(Target, "targets.md"), (Space, "spaces.md")])
def test_every_key_of_a_data_file_is_documented(model: type[BaseModel], page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    missing = {k for k in _keys(model) if f"`{k}`" not in text}
    assert not missing


@pytest.mark.parametrize("record", [Row, Header, Additivity])
def test_every_table_column_is_documented(record: type) -> None:
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    missing = {f.name for f in dataclasses.fields(record) if f"`{f.name}`" not in text}
    assert not missing


def test_links_between_pages_lead_somewhere() -> None:
    for page in [README, *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_names_its_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make deploy" in text
    assert "make test" in text
