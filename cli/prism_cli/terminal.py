"""A terminal that went away without a word.

Who owns the terminal hears of it by SIGHUP. A session that somebody else opened (`docker exec -it`, `setsid`)
hears nothing: reads end at once, again and again, and a program that waits for keys would turn in circles.
"""

import errno
import sys
import termios

# How often somebody who draws looks, in seconds.
LOOK_S = 1.0


def is_gone() -> bool:
    """Return whether there was a terminal behind stdin, and nobody holds its other end any more."""
    if sys.__stdin__ is None or sys.__stdin__.closed:
        return False
    try:
        termios.tcgetattr(sys.__stdin__.fileno())
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return False
