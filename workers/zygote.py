"""Forks processes that analyse from one that has imported everything and has run nothing.

To import torch takes seconds, to fork milliseconds, and what is forked shares the memory of what was imported. But a
fork of a process in which torch has run stands still: its threads are gone and their locks are held. The process that
serves the broker has threads and connections of its own. So a process stands between the two that does nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    Line = Connection[Any, Any]
    """Between two processes, for bytes: pickles would let a study that took one over into the other. EOFError, or
    OSError when one sends: the other one is gone."""

log = logging.getLogger(__name__)

_CAUSES = {
    signal.SIGALRM: "its job ran longer than worker.task_time_limit_s",
    signal.SIGKILL: "it was killed, as the kernel does when memory is out",
}


class Zygote:
    """The process that forks. It ends when the one that made it does, and those that it forked when they see that."""

    def __init__(self, prepare: Callable[[], object], live: Callable[[Line], object]) -> None:
        """Fork it from this process, which must not have begun a thread yet.

        Args:
            prepare: imports what the forked processes need; it must begin no thread and run nothing of torch.
            live: what a forked process does, with its end of a line; it ends when this returns.
        """
        self._orders, theirs = Pipe()
        self._pid = os.fork()
        if not self._pid:
            self._orders.close()
            _serve(theirs, prepare, live)
        theirs.close()

    def fork(self) -> Line:
        """Order a process; the line to it can be used at once.

        Raises:
            OSError: the zygote is gone.
        """
        ours, theirs = Pipe()
        with theirs:
            send_handle(self._orders, theirs.fileno(), self._pid)
        return ours

    def is_alive(self) -> bool:
        """Tell whether it can still fork."""
        try:
            return os.waitpid(self._pid, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return False


def _serve(orders: Line, prepare: Callable[[], object], live: Callable[[Line], object]) -> NoReturn:
    """Be the zygote, and in its children be what they are for."""
    code = 1
    try:
        # Ctrl-C, a closed terminal and service managers reach every process; when to end, the closed line says. Not
        # SIG_IGN, which decoders would inherit.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        prepare()
        # What is here now is never collected: that would copy every page on which an object lies.
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGCHLD, _bury)
        line = _until_forked(orders)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        orders.close()
        live(line)
        code = 0
    except EOFError:
        code = 0  # whoever gave the orders is gone
    except ImportError:
        log.exception("what analyses cannot be imported")
    except Exception as error:  # noqa: BLE001 -- the outer loop of a process
        # The type alone: the text of an unforeseen error may hold a patient's data.
        log.error("this process cannot go on (%s)", type(error).__name__)  # noqa: TRY400
    finally:
        logging.shutdown()
        os._exit(code)


def _until_forked(orders: Line) -> Line:
    """Fork a process for every order, and return in each of them, with its line."""
    while True:
        descriptor = recv_handle(orders)
        if not os.fork():
            return Connection(descriptor)
        os.close(descriptor)


def _bury(*_signal: object) -> None:
    """Say of what the forked processes died that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            if code < 0:
                name = signal.Signals(-code).name
                log.error("the process that analyses ended by %s%s", name, _because(-code))


def _because(number: int) -> str:
    return f": {_CAUSES[signal.Signals(number)]}" if number in _CAUSES else ", as after a fault in native code"
