"""Settings: flag, variable, file and default, in this order, and `config show --origin` tells which won."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.command_line import CommandLine, snapshot

VALUES = {
    "database": ("sqlite:////srv/{}.db", "CHARGEPKI_DATABASE"),
    "passphrase_file": ("/srv/{}.txt", "CHARGEPKI_PASSPHRASE_FILE"),
    "public_url": ("http://{}.example", "CHARGEPKI_PUBLIC_URL"),
    "publish_dir": ("/srv/{}", "CHARGEPKI_PUBLISH_DIR"),
}


def shown(done_json: dict[str, list[dict[str, str]]], setting: str) -> tuple[str | None, str]:
    row = next(row for row in done_json["settings"] if row["setting"] == setting)
    return row["value"], row["origin"]


@pytest.mark.parametrize("setting", VALUES)
def test_flag_wins_over_variable_over_file_over_default(fresh: CommandLine, setting: str) -> None:
    pattern, variable = VALUES[setting]
    values = {origin: pattern.format(origin) for origin in ("flag", "environment", "file")}
    fresh.home.mkdir()
    (fresh.home / "chargepki.toml").write_text(f'{setting} = "{values["file"]}"\n')
    show = ("config", "show", "--origin", "--json")
    flag = f"--{setting.replace('_', '-')}"
    by_flag = fresh(*show, flag, values["flag"], variables={variable: values["environment"]})
    assert shown(by_flag.json(), setting) == (values["flag"], "flag")
    by_variable = fresh(*show, variables={variable: values["environment"]})
    assert shown(by_variable.json(), setting) == (values["environment"], "environment")
    assert shown(fresh(*show).json(), setting) == (values["file"], "file")
    # An empty variable counts as not set.
    assert shown(fresh(*show, variables={variable: ""}).json(), setting) == (values["file"], "file")
    (fresh.home / "chargepki.toml").unlink()
    assert shown(fresh(*show).json(), setting)[1] == "default"


def test_home_comes_from_flag_or_variable_or_the_platform(fresh: CommandLine, tmp_path: Path) -> None:
    show = ("config", "show", "--json")
    assert shown(fresh(*show, "--home", tmp_path / "x").json(), "home") == (str(tmp_path / "x"), "flag")
    assert shown(fresh(*show).json(), "home") == (str(fresh.home), "environment")
    variables = {"CHARGEPKI_HOME": None, "XDG_DATA_HOME": str(tmp_path)}
    assert shown(fresh(*show, variables=variables).json(), "home") == (str(tmp_path / "chargepki"), "default")


def test_origin_is_a_column_only_when_asked_for(fresh: CommandLine) -> None:
    assert "origin" in fresh("config", "show", "--origin").out.splitlines()[0]
    assert "origin" not in fresh("config", "show").out.splitlines()[0]
    assert not fresh.home.exists()


def test_password_of_a_database_is_never_shown(fresh: CommandLine) -> None:
    url = "postgresql+psycopg://me:s3cret@db/pki?password=s3cret2"
    done = fresh("config", "show", "--database", url)
    assert "me:***@db" in done.out and "s3cret" not in done.out


def test_settings_of_the_file_reach_the_commands(run: CommandLine, place: Path) -> None:
    (run.home / "chargepki.toml").write_text(f'publish_dir = "{place / "www"}"\n')
    run("crl", "publish", "--ca", "t-cso-sub")
    assert sorted(path.name for path in (place / "www").rglob("t-*")) == ["t-cso-sub@1.cer", "t-cso-sub@1.crl"]


@pytest.mark.parametrize("setting", ["home", *VALUES])
def test_an_empty_flag_is_refused_and_not_taken_for_the_default(run: CommandLine, setting: str) -> None:
    """A script that passes an unset variable must not change another inventory than it means."""
    flag = f"--{setting.replace('_', '-')}"
    assert f"{flag} is empty" in run.run("ca", "list", flag, "").check_one_error(3).stderr


HOSTILE_FILES = {
    "empty value": b'database = ""\n',
    "control characters": b'publish_dir = "a\\u0000b"\n',
    "no TOML": b"this is no toml",
    "cut": b'public_url = "http://a',
    "binary": bytes(range(256)),
    "invalid UTF-8": b'public_url = "\xff\xfe"',
    "NUL": b'public_url = "a\0b"',
    "duplicate key": b'public_url = "http://a"\npublic_url = "http://b"\n',
    "unknown key": b'publik_url = "http://a"\n',
    "number": b"public_url = 5\n",
    "table": b'[database]\nurl = "sqlite:///x"\n',
    "list": b'database = ["sqlite:///x"]\n',
    "deeply nested": b"database = " + b"[" * 100_000,
    "10 MB": b"# " + b"x" * 10_000_000,
    "escape sequence": b'"\\u001b[2J" = "x"\n',
    "home": b'home = "/elsewhere"\n',
    "relative URL": b'public_url = "pki.example"\n',
    "URL with line break": b'public_url = "http://a\\nb"\n',
    "URL with credentials": b'public_url = "http://me:s3cret@pki.example"\n',
}


@pytest.mark.parametrize("content", HOSTILE_FILES.values(), ids=list(HOSTILE_FILES))
def test_a_malformed_file_is_one_clear_error(run: CommandLine, content: bytes) -> None:
    (run.home / "chargepki.toml").write_bytes(content)
    before = snapshot(run.home)
    done = run.run("ca", "list", variables={"CHARGEPKI_PUBLIC_URL": None}).check_one_error(3)
    assert snapshot(run.home) == before and "s3cret" not in done.stderr


def test_a_file_that_is_a_folder_is_one_clear_error(run: CommandLine) -> None:
    (run.home / "chargepki.toml").mkdir()
    run.run("ca", "list").check_one_error(4)


def test_a_file_that_is_a_loop_is_one_clear_error(run: CommandLine) -> None:
    (run.home / "chargepki.toml").symlink_to("chargepki.toml")
    run.run("ca", "list").check_one_error(4)


def test_an_endless_file_is_one_clear_error(run: CommandLine) -> None:
    (run.home / "chargepki.toml").symlink_to("/dev/zero")
    run.run("ca", "list").check_one_error(3)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://a b", "http://a/\x1b[2J", "http://" + "a" * 3000])
def test_a_bad_public_url_is_one_clear_error_and_creates_nothing(fresh: CommandLine, url: str) -> None:
    fresh.run("ca", "create", "x", "--profile", "ocpp/cso-root", "--public-url", url).check_one_error(3)
    assert not fresh.home.exists()


def test_whose_revocations_a_list_names_is_all_or_own(fresh: CommandLine) -> None:
    variable = "CHARGEPKI_CRL_GENERATIONS"
    show = ("config", "show", "--origin", "--json")
    assert shown(fresh(*show).json(), "crl_generations")[1] == "default"
    assert shown(fresh(*show, variables={variable: "own"}).json(), "crl_generations") == ("own", "environment")
    refused = fresh.run("ca", "list", variables={variable: "some"}).check_one_error(3)
    assert "crl_generations is 'some'" in refused.stderr
