"""Work that is killed: for scripts that tests start, since a fork of pytest's own process would have its threads' locks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def killed(work: Callable[[], object], begun: Callable[[], bool], after_s: float = 0.0) -> None:
    """Does the work in a process of its own, and ends it by kill -9 `after_s` seconds after `begun` says yes. Fails if it ended by itself."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    while not begun():
        time.sleep(0.001)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it ended by itself"
