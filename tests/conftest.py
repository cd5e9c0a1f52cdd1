"""What every test process needs before its first test."""

import signal

# Started in the background of a shell, a test run inherits an ignored SIGINT, and so would every
# command that a test starts and interrupts: it would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
