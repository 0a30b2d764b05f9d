"""The command line: one thin file per command.

Nothing heavy is imported here, so that `panmodal --help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from panmodal.cli import (
    ask,
    bench,
    caption,
    chat,
    classify,
    compare,
    data,
    embed,
    evaluate,
    judge,
    match,
    models,
    playground,
    report,
    score,
    search,
    segment,
    train,
)
from panmodal.errors import PanmodalError

app = typer.Typer(
    name="panmodal",
    help="Multimodal foundation models: ask, caption, embed, search, segment, train, evaluate, score, judge.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (ask, chat, caption, embed, classify, match, search, segment)
for module in (*VERBS, train, evaluate, score, judge, report, compare, models, playground, bench):
    app.command(module.NAME, epilog=f"Example: `{module.EXAMPLE}`")(module.run)
app.add_typer(data.app, epilog=f"Example: `{data.EXAMPLE}`")


def main() -> None:
    """Runs a command; what the user got wrong is one line on standard error and exit status 1."""
    try:
        app()
    except PanmodalError as error:
        print(f"panmodal: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
