"""The ``gapless`` command: which commands there are, and how they fail.

A wrong input is one or two sentences on standard error, exit status 2, and no traceback. So is a machine that fails a
command: a full disk, too little memory. An interrupt is one sentence, exit status 130 (Ctrl-C) or 143 (SIGTERM).
"""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cyclopts import App, CycloptsError, UnknownOptionError
from rich.console import Console

from gapless import __version__
from gapless.commands import failures
from gapless.commands.options import flag
from gapless.core import catalogue, interrupt
from gapless.core.errors import Stopped, Untrusted, UserError
from gapless.core.settings import fields_of
from gapless.core.text import printable

HELP = """Find a neural architecture inside one weight-sharing supernet, and see how far the answer can be trusted.

`gapless search` alone runs a demonstration of a few minutes on bundled data."""
COMMANDS = {
    "search": "search",
    "resume": "resume",
    "retrain": "retrain",
    "evaluate": "evaluate",
    "compare": "compare",
    "export": "export",
    "show": "show",
    "gap": "gap",
    "diagnose": "diagnose",
    "report": "report",
    "check": "check",
    "list": "list_",
    "table": "table",
}
"""Name of a command -> its module in this folder, which holds the help as ``DOC``, and ``command``, which returns what
is bound for the arguments. Only the module of the command that is called is imported: most import PyTorch."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 wrong input, 130 or 143 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # an encoding that lacks a character shows its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    gc.disable()  # imports make a million objects that live as long as the process: there is nothing to collect yet
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    arguments = list(arguments)
    with catalogue.trusting("--trust" in arguments):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    options = {"trust"} | {word.removeprefix("--").partition("=")[0] for word in arguments if word.startswith("--")}
    try:
        failures.check_address_space(arguments[0] if arguments else "")
        app = bound_app(arguments)
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        options = {name.replace("__", ".") for name in inspect.signature(command).parameters}
        with _interruptible():
            command(*bound.args, **bound.kwargs)
    except (UserError, CycloptsError) as error:
        if isinstance(error, CycloptsError):
            message = f"{str(error).strip()}{owners(error)} See --help."
        else:
            told = error.where and not isinstance(error, Untrusted)  # a file's line is mended in the file
            message = str(error) if told else error.where + error.spelled(lambda name: flag(name, options))
        message = printable(message, keep="\n")
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(message)
        return 2
    except Stopped as stopped:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"\n{stopped}")
        return stopped.status
    except BrokenPipeError:  # who read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except BaseException as error:
        if interrupt.caused(error):
            print("Interrupted.", file=sys.stderr)
            return interrupt.status()
        try:
            failure = failures.sentence(error)
        except MemoryError:
            failure = failures.SHORT
        if failure is None:
            raise
        print(printable(UserError(failure).spelled(lambda name: flag(name, options))), file=sys.stderr)
        return 2
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals raise :class:`KeyboardInterrupt` from here on, where :func:`gapless.commands.entry.main` answers
    them."""
    interrupt.ask(0)
    ours = [number for number in interrupt.SIGNALS if signal.getsignal(number) is interrupt.leave]
    for number in ours:
        signal.signal(number, interrupt.interrupt)
    hook = sys.unraisablehook
    if ours and hasattr(signal, "setitimer"):
        sys.unraisablehook = interrupt.again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in ours:
            signal.signal(number, interrupt.leave)


def bound_app(arguments: Sequence[str]) -> App:
    """Return the command line, in which the command that is called has its options; the others have their help."""
    app = App(name="gapless", help=HELP, version=__version__, help_format="markdown")
    for name, file in COMMANDS.items():
        if arguments[:1] == [name]:
            module = importlib.import_module(f"gapless.commands.{file}")
            made = module.command(arguments)
            app.command(made, **({} if isinstance(made, App) else {"name": name, "help": module.DOC}))
        else:
            text = Path(__file__).with_name(f"{file}.py").read_text(encoding="utf-8")
            app.command(_other, name=name, help=catalogue.constant(ast.parse(text).body, "DOC"))
    return app


def _other() -> None:
    """Stand in the list of commands for one that is not called."""


def owners(error: CycloptsError) -> str:
    """Return who has a setting that the chosen method or space does not have, as a sentence; empty where nobody has."""
    token = getattr(error, "token", None)
    word = (getattr(token, "keyword", None) or getattr(token, "value", None) or "").partition("=")[0]
    for prefix, kinds in (
        ("--method.", ("methods", "searchers")),
        ("--space.", ("spaces",)),
        ("--score.", ("scores",)),
    ):
        if isinstance(error, UnknownOptionError) and word.startswith(prefix):
            name = word.removeprefix(prefix)
            having = [n for kind in kinds for n in catalogue.names(kind) if name in fields_of(catalogue.find(n, kind))]
            if having:
                return f" It is a setting of {' and '.join(having)}."
    return ""
