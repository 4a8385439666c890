"""The root command: lazy sub-commands, global options, and the one place where an error becomes an exit code.

Only `click` is imported here, so that ``chargepki --help`` costs little more than the interpreter; each noun's module
is imported when it is used.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from chargepki.cli.globals import GlobalState, Group, ReaderGone

__all__ = ["EXIT_BUG", "EXIT_INTERRUPTED", "EXIT_NO", "EXIT_REFUSED", "EXIT_UNAVAILABLE", "EXIT_USAGE", "cli", "main"]

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNAVAILABLE = 4
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

# noun -> (module, attribute, one line for the list of commands)
COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "alerts": ("chargepki.cli.alerts", "alerts", "See, try and acknowledge alerts."),
    "approval": ("chargepki.cli.approval", "approval", "Approve acts that need a second person."),
    "audit": ("chargepki.cli.audit", "audit", "Show and verify the tamper-evident log of every act."),
    "authority": ("chargepki.cli.authority", "authority", "Sign what other processes queue in the inventory."),
    "backup": ("chargepki.cli.backup", "backup", "Back up a workspace, encrypted, and verify a backup."),
    "ca": ("chargepki.cli.ca", "ca", "Create and look at certificate authorities."),
    "campaign": ("chargepki.cli.campaign", "campaign", "Do one thing to many stations, in waves."),
    "cert": ("chargepki.cli.cert", "cert", "Issue, list, show and revoke certificates."),
    "config": ("chargepki.cli.config", "config", "Show the settings and where each comes from."),
    "contract": ("chargepki.cli.contract", "contract", "Contracts of drivers, and their certificates in vehicles."),
    "crl": ("chargepki.cli.crl", "crl", "Publish and read certificate revocation lists."),
    "csms": ("chargepki.cli.csms", "csms", "Serve the OCPP endpoint that charging stations connect to."),
    "csr": ("chargepki.cli.csr", "csr", "Judge a certificate signing request."),
    "demo": ("chargepki.cli.demo", "demo", "Tell the main story on loopback in a throw-away workspace."),
    "doctor": ("chargepki.cli.doctor", "doctor", "Tell what a heap of certificates and keys is, and what ails it."),
    "est": ("chargepki.cli.est", "est", "Enrol over EST, and decide who may enrol with us."),
    "exi": ("chargepki.cli.exi", "exi", "Read and write the EXI of Plug & Charge certificate messages."),
    "firmware": ("chargepki.cli.firmware", "firmware", "Sign, verify, approve and test firmware for stations."),
    "inventory": ("chargepki.cli.inventory", "inventory", "Look at everything the inventory holds."),
    "lint": ("chargepki.cli.lint", "lint", "Check certificates and CRLs against the standards."),
    "profile": ("chargepki.cli.profile", "profile", "Show the certificate profiles, field by field."),
    "restore": ("chargepki.cli.restore", "restore", "Restore a workspace from a backup."),
    "ocsp": ("chargepki.cli.ocsp", "ocsp", "Prepare and read OCSP responses."),
    "query": ("chargepki.cli.query", "query", "Save filters under a name."),
    "serve": ("chargepki.cli.serve", "serve", "Serve OCSP, CRLs and CA certificates over HTTP."),
    "station": ("chargepki.cli.station", "station", "Register, operate and simulate charging stations."),
    "vehicle": ("chargepki.cli.vehicle", "vehicle", "Vehicles that contracts can be provisioned to."),
}


# What helps where an error deep in a decoder knows only what is wrong.
_USUAL_FIX: Mapping[str, str] = {
    "input": "check that it is the right input, and whole",
    "exi": "check that it is the right input, and whole",
    "der": "check that it is the right input, and whole",
    "message-signature": "get the message anew from whoever signs it",
    "contract-key": "get the response anew; it was made for another vehicle, or changed on the way",
    "not-found": "check its spelling; see what there is with: chargepki inventory list",
    "unavailable": "check the name and its permissions",
    "signer": "check the workspace, or restore its keys from the backup",
}


class LazyRoot(Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the nouns, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command *cmd_name*; ``None`` when there is none."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve the noun; an unknown one is answered with those that are spelt alike."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in sorted(COMMANDS)])


@click.command(
    cls=LazyRoot,
    context_settings={"auto_envvar_prefix": "CHARGEPKI"},
    example="chargepki ca create-hierarchy ocpp --prefix acme --organization 'Acme Charging' --country DE",
)
@click.version_option(package_name="chargepki", message="%(package)s %(version)s")
def cli() -> None:
    """A certificate authority that speaks OCPP: issue, lint, deliver and revoke EV-charging certificates."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code that interfaces.md fixes."""
    # With Python's own 700 a start spends a fifth of its time looking for garbage that is not there yet.
    gc.set_threshold(10_000)
    # And an end a sixth: what is left then goes with the process, in cycles or not.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    state = GlobalState()
    given = sys.argv[1:] if args is None else args
    try:
        if any("\0" in arg for arg in given):
            # No shell can pass one, but a program that calls `main` can; to the system it would end a file's name.
            raise click.UsageError("an argument holds a NUL character")
        code = cli.main(args=given, prog_name="chargepki", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except click.Abort:
        state.say_line("interrupted")
        code = EXIT_INTERRUPTED
    except KeyboardInterrupt:
        state.say_line("interrupted")
        code = EXIT_INTERRUPTED
    except click.FileError as exc:
        state.report(what=exc.format_message(), why="", fix="check the path", code="unavailable")
        code = EXIT_UNAVAILABLE
    except click.exceptions.NoArgsIsHelpError as exc:
        # Somebody looks around: that is no mistake to be told off for, though nothing was asked either.
        state.say_line(exc.format_message())
        code = EXIT_USAGE
    except click.ClickException as exc:
        # The flag may stand behind what could not be parsed.
        state.json = state.json or "--json" in given
        code = _usage_error(state, exc)
    except UnicodeEncodeError as exc:
        # A file's name may be any bytes. Whatever else is typed must be text, and ends up where only text is taken.
        is_ours = all(arg.encode("utf-8", "replace") == arg.encode("utf-8", "surrogateescape") for arg in given)
        code = _other_error(state, exc) if is_ours else _encoding_error(state)
    except (BrokenPipeError, ReaderGone):
        # The reader of our output went away (`| head`): that is its decision, not an error of ours.
        _give_up_stdout()
        code = 0
    except Exception as exc:  # noqa: BLE001 - the last resort turns every other exception into one line
        code = _other_error(state, exc)
    sys.exit(_flushed(state, code if isinstance(code, int) else 0))


def _flushed(state: GlobalState, code: int) -> int:
    """Write what stdout still holds, and return the exit code that is right then."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _give_up_stdout()
        if code == 0 or state.json or state.json_lines:
            # Not as JSON: that would go where nothing can be written.
            state.say_line(f"error: cannot write to standard output: {exc.strerror}")
            return code or EXIT_UNAVAILABLE
    return code


def _give_up_stdout() -> None:
    """Drop what can no longer be written, so that the interpreter does not fail with it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_error(state: GlobalState, exc: click.ClickException) -> int:
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    path = ctx.command_path if ctx else "chargepki"
    from chargepki.pki.errors import printable

    # Click repeats what was typed, in some messages as it is and over several lines.
    what = printable(" ".join(exc.format_message().split()))
    state.report(what=what, why="", fix=f"run: {path} --help", code="usage")
    return EXIT_USAGE


def _encoding_error(state: GlobalState) -> int:
    state.report(
        what="an argument is not valid UTF-8",
        why="names and values are text; only a file may be named by any bytes",
        fix="check the encoding of the terminal or of the script",
        code="usage",
    )
    return EXIT_USAGE


def _other_error(state: GlobalState, exc: Exception) -> int:
    from chargepki.pki.errors import ChargePkiError, FaultyConfiguration, InputError, SignerError, UnavailableError

    if state.debug:
        import traceback

        traceback.print_exc()
    if isinstance(exc, ChargePkiError):
        fix = exc.fix or _USUAL_FIX.get(exc.code, "")
        why = exc.why + _origin_of_passphrase(state) if "wrong passphrase" in exc.why else exc.why
        state.report(what=exc.what, why=why, fix=fix, code=exc.code, details=_details(exc))
        if isinstance(exc, UnavailableError | SignerError):
            return EXIT_UNAVAILABLE
        # A setting and a filter are how the question was put; none of what it asks about.
        is_question = isinstance(exc, FaultyConfiguration) or exc.code == "filter"
        asked_about = isinstance(exc, InputError) and not is_question
        return EXIT_NO if asked_about and state.is_verdict else EXIT_REFUSED
    if isinstance(exc, OSError):
        name = f" {exc.filename}" if exc.filename else ""
        state.report(what=f"cannot use{name}: {exc.strerror or exc}", why="", fix="check path, space and permissions")
        return EXIT_UNAVAILABLE
    state.report(
        what=f"this is a bug in chargepki: {type(exc).__name__}: {exc}",
        why="the command met a state that it does not foresee",
        fix="run it again with --debug and report the traceback",
        code="bug",
    )
    return EXIT_BUG


def _origin_of_passphrase(state: GlobalState) -> str:
    """Return where the passphrase that did not fit came from, never the passphrase itself."""
    source = state.settings.passphrase_file
    if source is None:
        return "; it was typed"
    from chargepki.pki.errors import printable

    return f"; it was read from {printable(source)} (named by {state.settings.origins['passphrase_file']})"


def _details(exc: Exception) -> dict[str, Any]:
    findings = getattr(exc, "findings", ())
    if not findings:
        return {}
    return {
        "findings": [
            {"rule": f.rule, "severity": f.severity.value, "message": f.message, "clause": f.clause, "hint": f.hint}
            for f in findings
        ]
    }
