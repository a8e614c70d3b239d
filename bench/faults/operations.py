"""Count the operations of a process on files, and end it before one of them.

Counted are: opening to write, renaming, removing, making folders and links, and fsync. All but the
last come from audit hooks, which see every call of Python, of its libraries too.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, final

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink"),
    *("os.truncate", "os.chmod", "os.chown"),
}


def is_change(event: str, arguments: tuple[object, ...]) -> bool:
    """True if an audit event announces a change of files."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(flags, int) and bool(flags & WRITING) and path != os.devnull
    return event in CHANGES


@final
class Operations:
    """Counts operations in this process, and kills it before number `last` (from 1; 0: never), or
    before the first one at which `when` is true.

    If it dies at an fsync and `torn`, the file is cut to half of its length first: what was not
    yet synced may be lost when a machine stops.
    """

    def __init__(
        self, last: int = 0, *, torn: bool = False, when: Callable[[], bool] | None = None
    ) -> None:
        self.count = 0
        self._last, self._torn, self._when = last, torn, when
        self._lock = Lock()

    def install(self) -> None:
        """Begin to count. There is no way back: for a process of its own."""
        sys.addaudithook(self._hear)
        real = os.fsync

        def fsync(fd: Any) -> None:
            self._next(lambda: self._tear(fd))
            real(fd)

        os.fsync = fsync

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if is_change(event, arguments):
            self._next(lambda: None)

    def _next(self, before_death: Callable[[], None]) -> None:
        with self._lock:
            self.count += 1
            dies = self.count == self._last
        if dies or (self._when is not None and self._when()):
            before_death()
            os.kill(os.getpid(), signal.SIGKILL)

    def _tear(self, handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}")
        if self._torn and path.is_file():
            with suppress(OSError):
                os.truncate(path, path.stat().st_size // 2)
