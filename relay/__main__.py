"""The `relay` command, also as `python -m relay`."""

import signal


def run() -> None:
    """Run the command. While it is imported Ctrl-C ends the process at once, since an import is not to be interrupted:
    it leaves a traceback, or half of an extension in C, which crashes.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from relay.cli import main

    main()


if __name__ == "__main__":
    run()
