"""The `apr` command: the table of verbs, and how every ending becomes one object and a code.

Help reads only this table; a verb's module is imported when the verb is used.
"""

import sys
import traceback
from typing import NoReturn

import click

from apr import __version__
from apr.cli import environment, output, stopping, streams, torchrun
from apr.cli.groups import LazyGroup, Table
from apr.errors import EXIT_BUG, EXIT_DONE, Interrupted, IoFailed, Refusal

VERBS: Table = {
    "demo": ("apr.cli.demo:command", "Train a small model on your interpreter's own sources."),
    "corpus": ("apr.cli.corpus.group:command", "Split a corpus and certify its two parts."),
    "tokenize": ("apr.cli.tokenize.group:command", "Train tokenizers; turn a corpus into shards."),
    "plan": ("apr.cli.plan:command", "Say what a run takes, before it starts."),
    "pretrain": ("apr.cli.pretrain:command", "Train a model on shards, or resume a run."),
    "selftest": ("apr.cli.selftest:command", "Prove a run on its own model and data."),
    "import": ("apr.cli.import_model:command", "Turn a model from elsewhere into an .apr file."),
    "export": ("apr.cli.export:command", "Write a model for Hugging Face or llama.cpp."),
    "inspect": ("apr.cli.inspect:command", "Show what an .apr file holds."),
    "validate": ("apr.cli.validate:command", "Check every byte of an .apr file."),
    "lint": ("apr.cli.lint:command", "Say what an .apr file lacks, and how to mend it."),
    "diff": ("apr.cli.diff:command", "Compare two .apr files."),
    "stamp": ("apr.cli.stamp:command", "Add provenance and identity to an .apr file."),
    "run": ("apr.cli.run:command", "Write text with a model (also: generate)."),
    "bench": ("apr.cli.bench.group:command", "Measure what this machine does, beside others."),
    "report": ("apr.cli.report:command", "Write a run's page again from its record."),
    "compare": ("apr.cli.compare:command", "Rank runs on one held-out set, and lay them over."),
}
ALIASES = {"convert": "import", "generate": "run"}


@click.command(
    cls=LazyGroup,
    table=VERBS,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(
    __version__, message="apr %(version)s (Python/PyTorch; reads and writes .apr version 2)"
)
def cli() -> None:
    """From a code corpus to a small language model that provably learned from it.

    Start with: apr demo
    """


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    streams.prepare()
    stopping.end_like_ctrl_c()
    arguments = sys.argv[1:] if argv is None else argv
    exit_code = run(arguments)
    streams.finish()
    # In order, an interrupted command would first compile what still waits in torch's queue, and
    # a rank that failed would wait for the others, which see its connections close.
    is_failed_rank = exit_code != EXIT_DONE and torchrun.has_started_this()
    if exit_code == Interrupted.exit_code or is_failed_rank:
        stopping.leave(exit_code)
    sys.exit(exit_code)


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Every ending prints through `output`."""
    as_json = "--json" in arguments[: _end_of_options(arguments)]
    environment.set_own()
    try:
        result = cli.main(
            args=arguments, prog_name="apr", standalone_mode=False, obj=tuple(arguments)
        )
        if isinstance(result, output.Result):
            return output.emit(result, as_json=as_json)
        return result if isinstance(result, int) else EXIT_DONE
    except click.exceptions.NoArgsIsHelpError as err:
        return output.emit_help(err.ctx.get_help())
    except click.UsageError as err:
        return output.emit_usage_error(err, as_json=as_json)
    except Interrupted as err:
        return output.emit_interrupted(err, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return output.emit_interrupted(Interrupted("interrupted"), as_json=as_json)
    except Refusal as err:
        return output.emit_refusal(err, as_json=as_json)
    except BrokenPipeError:
        # The reader of a help page went away; leave quietly instead of failing at shutdown.
        streams.discard_stdout()
        return EXIT_DONE
    except OSError as err:
        return output.emit_refusal(
            IoFailed(
                "files.io-failed",
                err.filename or "input/output",
                found=err.strerror or str(err),
                expected="a working file system",
                fix="free space or correct permissions, then run the same command again",
            ),
            as_json=as_json,
        )
    except Exception:
        return output.emit_bug(traceback.format_exc(), as_json=as_json, exit_code=EXIT_BUG)


def _end_of_options(arguments: list[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)
