"""The root command: help, global options on both sides of the verb, errors as texts and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chargepki.cli.ca import ca
from chargepki.cli.main import COMMANDS, cli
from testkit.command_line import CommandLine


def all_commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group."""

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                child = command.get_command(click.Context(command), name)
                assert child is not None
                yield from walk(child, (*words, name))

    yield from walk(cli, ())


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_help_of_every_command_ends_with_an_example_of_itself(fresh: CommandLine, words: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        done = fresh(*words, flag)
        text, _, example = done.out.partition("\nExample:\n")
        assert text.startswith(f"Usage: {' '.join(('chargepki', *words))} [OPTIONS]")
        assert example.startswith(f"  {' '.join(('chargepki', *words))}"), "the example shows another command"
        for option in ("--home", "--database", "--passphrase-file", "--public-url", "--publish-dir", "--json", "-q, "):
            assert option in text
    assert not fresh.home.exists()


@pytest.mark.parametrize("words", [(), ("ca",), ("cert",)], ids=str)
def test_a_noun_alone_shows_its_help_and_is_no_error(fresh: CommandLine, words: tuple[str, ...]) -> None:
    done = fresh(*words, code=2)
    assert done.stderr.startswith("Usage: chargepki") and "error: " not in done.stderr


def test_list_of_commands_shows_whole_sentences(fresh: CommandLine) -> None:
    for noun in COMMANDS:
        assert "..." not in fresh(noun, "--help").out.partition("Commands:")[2].partition("Global options:")[0]


def test_version_is_shown(fresh: CommandLine) -> None:
    assert fresh("--version").out.startswith("chargepki 0.")


@pytest.mark.parametrize("words", [("--json", "ca", "list"), ("ca", "--json", "list"), ("ca", "list", "--json")])
def test_global_flags_are_taken_before_and_after_noun_and_verb(run: CommandLine, words: tuple[str, ...]) -> None:
    assert run(*words).json()["schema"] == "chargepki/ca-list"


@pytest.mark.parametrize("position", range(3))
def test_global_settings_are_taken_before_and_after_noun_and_verb(
    run: CommandLine, fresh: CommandLine, position: int
) -> None:
    words: list[str | Path] = ["ca", "list"]
    words[position:position] = ["--home", run.home]
    assert "t-cso-sub@1" in fresh(*words).out
    assert not fresh.home.exists()


def test_the_setting_behind_the_verb_wins_over_the_one_before(run: CommandLine, tmp_path: Path) -> None:
    assert "t-cso-sub@1" in run("--home", tmp_path / "other", "ca", "list", "--home", run.home).out


def test_json_lines_prints_one_object_a_row(run: CommandLine) -> None:
    rows = run("ca", "list", "--json-lines").json_lines()
    assert {row["schema"] for row in rows} == {"chargepki/ca-list"}
    assert [row["name"] for row in rows] == ["t-cso-root", "t-cso-sub", "t-manufacturer-root"]


def test_quiet_silences_words_and_keeps_data_and_errors(run: CommandLine) -> None:
    loud, quiet = run("station", "add", "CS-7"), run("station", "add", "CS-8", "-q")
    assert "registered station CS-7" in loud.stderr and quiet.stderr == ""
    assert "CS-8" in quiet.out
    run.run("station", "add", "CS-8", "-q").check_one_error(3)


def test_verbose_adds_reasons(run: CommandLine) -> None:
    assert "reason superseded" not in run("audit", "show").out
    assert "reason superseded" in run("audit", "show", "-v").out


def test_unknown_noun_and_verb_are_answered_with_what_is_spelt_alike(fresh: CommandLine) -> None:
    assert "Did you mean cert or csr?" in fresh.run("crt").check_one_error(2).stderr
    assert "Did you mean 'list'?" in fresh.run("ca", "lst").check_one_error(2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cert", "list", "--bogus"),
        ("cert", "issue"),
        ("ca", "create"),
        ("ca", "create", "x", "--profile"),
        ("cert", "list", "--limit", "0"),
        ("cert", "list", "--limit", "many"),
        ("station", "add", "X", "--security-profile", "4"),
        ("crl", "publish"),
        ("crl", "publish", "--all", "--ca", "t"),
        ("lint",),
        ("ca", "list", "surplus"),
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2_and_point_at_the_help(fresh: CommandLine, words: tuple[str, ...]) -> None:
    done = fresh.run(*words).check_one_error(2)
    assert "fix: run: chargepki" in done.stderr and "--help" in done.stderr
    assert not fresh.home.exists()


@pytest.mark.parametrize("words", [("--json", "cert", "list", "--bogus"), ("cert", "list", "--bogus", "--json")])
def test_json_errors_are_one_object_wherever_the_flag_stands(fresh: CommandLine, words: tuple[str, ...]) -> None:
    done = fresh(*words, code=2)
    assert done.stderr == ""
    error = done.json()
    assert (error["schema"], error["schema_version"], error["code"]) == ("chargepki/error", 1, "usage")
    assert error["what"] and error["fix"]


def test_a_refusal_by_the_profile_carries_its_findings_as_json(run: CommandLine) -> None:
    error = run("ca", "show", "nobody", "--json", code=3).json()
    assert error["code"] == "not-found" and error["fix"].endswith("chargepki ca list")


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 4, "cannot use /x: Permission denied"),
        (RuntimeError("impossible"), 70, "this is a bug in chargepki: RuntimeError: impossible"),
        (click.FileError("f", "gone"), 4, "gone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_end_has_its_exit_code(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, words: str
) -> None:
    def end(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(ca.commands["list"], "callback", end)
    done = run("ca", "list", code=code)
    assert words in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_the_traceback_of_a_bug(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object, **__: object) -> None:
        raise RuntimeError("impossible")

    monkeypatch.setattr(ca.commands["list"], "callback", end)
    assert "Traceback" in run("ca", "list", "--debug", code=70).stderr
    assert json.loads(run("ca", "list", "--json", code=70).out)["code"] == "bug"


def test_what_was_typed_cannot_steer_the_terminal_through_an_error(fresh: CommandLine) -> None:
    for words in (
        ("\x1b[2J",),
        ("ca", "list", "\x1b[2J\nb"),
        ("cert", "list", "--\x1b[2J"),
        ("cert", "list", "--limit", "\x1b"),
    ):
        fresh.run(*words).check_one_error(2)
