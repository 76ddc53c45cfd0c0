"""Loading many modules: without the collector of cycles, and beside an event loop that has better to do."""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["uncollected", "unnoticed"]

_TURN_S = 0.0001


@contextmanager
def uncollected() -> Generator[None]:
    """Nothing is collected in this block, which loads modules: a tenth of the processor that it takes otherwise.

    The collector would walk again and again what is there to stay.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def unnoticed() -> Generator[None]:
    """`uncollected`, in a thread beside an event loop, which gets its turn after 0.1 ms instead of Python's 5 ms.

    uvloop asks for a turn at each callback, so that 400 streams would wait for 2 s together: `docs/log.md`.
    """
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        with uncollected():
            yield
            gc.freeze()  # as a server does at its start: what stays need not be walked
    finally:
        sys.setswitchinterval(usual_s)
