"""The one error that travels: across steps, over the wire from an agent, and out of the command line."""

import errno
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of the command line; scripts rely on them."""

    DONE = 0
    USAGE = 2
    REFUSED = 3
    UNDONE = 4
    OPERATOR = 5
    ABORTED = 6


class Problem(Exception):  # noqa: N818 - it is what an operator reads, and not always an error of ours
    """Something an operator should read: one sentence that says what is wrong, and one that says what to do.

    `code` is stable and meant for programs (kebab-case, such as ``guest-unknown``); `message` and `remedy` are
    for people; `exit` is what the command line ends with; `attributes` are JSON values that go along.
    A caller either handles the codes it knows or lets the problem pass.
    """

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        exit: Exit = Exit.USAGE,  # noqa: A002 - the field's name on the wire
        **attributes: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.exit = exit
        self.attributes = attributes

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}." if self.remedy else f"{self.message}."


def no_space(error: OSError, host: str | None = None) -> Problem | None:
    """What is said of a write for which a disk, or a quota, had no room; None of any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    place = f"{error.filename or 'a disk'}{f' on {host}' if host else ''}"
    remedy = "Free some, or find out what fills it (df -h, df -i), and ask again"
    return Problem("no-space", f"No space left on the file system of {place}", remedy, exit=Exit.REFUSED)
