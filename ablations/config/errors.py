"""What ends a command: an error of the user's, or a wish to stop."""


class UsageError(ValueError):
    """Something that the user asked for cannot be; the message is one line with the value and the fix."""


class RunStopped(Exception):
    """No more cells are started; the message says why. What is finished is kept."""


class Interrupted(BaseException):
    """The user or the system asked to stop; what is finished is kept.

    Not an Exception: whoever catches what a cell or a library does wrong must not catch this.
    """
