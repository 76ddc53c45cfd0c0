"""The `galerne` command: finds the module of the subcommand, runs it, and answers mistakes in one line.

Subcommands are imported by name only when used: `galerne keys list` need not load an engine, and `galerne train` may
need an extra that is not installed.
"""

import importlib
import os
import sys
from typing import Any, cast

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from galerne import __version__
from galerne.kernel import GalerneError, uncollected

COMMANDS = {
    "serve": "Serve everything in one place: API, engines, database.",
    "gateway": "Serve inference alone, beside a server.",
    "worker": "Do what time brings about: rating, alerts, renewals.",
    "models": "List, show, add, remove and verify models.",
    "organisations": "Create, list, show and change organisations.",
    "workspaces": "Create, list and change workspaces.",
    "keys": "Create, list and revoke API keys.",
    "prices": "Set, list and quote what tokens cost.",
    "rating": "Rate usage, show what has no price, re-rate.",
    "plans": "List and publish the plans that an organisation may have.",
    "subscriptions": "Subscribe organisations to plans, change that, list charges.",
    "budgets": "Set budgets, give alerts, show costs to cost centres.",
    "contracts": "Draft, preview, sign and renew contracts.",
    "billing": "Close a month; set who issues invoices and to whom.",
    "invoices": "List, show, finalise, void and credit invoices.",
    "credits": "Grant, list, end and correct credit, check the books.",
    "webhooks": "Say where webhooks go, change their secrets, see how they stand, send one again.",
    "payments": "Import bank statements, record, assign and refund payments.",
    "limits": "Set, list and remove limits.",
    "usage": "Show what was consumed, export what it cost.",
    "journal": "Sign, prove, verify or export the record of what happened.",
    "verify": "Verify an invoice, a proof, a checkpoint or an export, offline.",
    "train": "Train a model from a recipe.",
    "engine": "Run one engine process.",
}
_EXTRAS = {"train": "train"}


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        with uncollected():
            module = importlib.import_module(f"galerne.apps.commands.{cmd_name}")
        command = typer.main.get_command(cast(typer.Typer, module.app))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"galerne {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """Galerne: the AI infrastructure that an organisation owns."""


def main() -> None:
    """Run the command line; exit 0 when done, 1 when refused or failed, with a line that says why, 2 on wrong usage."""
    os.umask(0o077)  # whatever a command writes is for the one who ran it
    try:
        app()
    except GalerneError as error:
        _fail(error.message)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        name = "_".join(["galerne", *map(str, first["loc"])]).upper()
        _fail(f"{name}: {message}" if first["loc"] else message)
    except OSError as error:
        _fail(f"{error.filename or 'a file or connection'}: {error.strerror or error}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(next(iter(sys.argv[1:]), ""))
        if extra is None or (error.name or "").startswith("galerne"):
            raise
        _fail(f"This command needs {error.name}: install the extra with `pip install 'galerne[{extra}]'`.")


def _fail(message: str) -> None:
    typer.echo(f"galerne: {message}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
