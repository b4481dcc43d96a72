"""The installed command ``gapless``: it answers signals before it imports what it runs."""

import signal

from gapless.core import interrupt


def main() -> None:
    """Run the command line and exit."""
    for number in interrupt.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as behind nohup
            signal.signal(number, interrupt.leave)
    from gapless.commands import app

    try:
        app.main()
    finally:  # all is done and said: what is left is to give memory back
        for number in interrupt.SIGNALS:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
