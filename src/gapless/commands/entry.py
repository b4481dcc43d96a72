"""The installed command ``gapless``: it answers signals before it imports what it runs."""

import signal

from gapless.core import interrupt


def main() -> None:
    """Run the command line and exit."""
    for number in interrupt.SIGNALS:
        signal.signal(number, interrupt.leave)
    from gapless.commands import app

    app.main()
