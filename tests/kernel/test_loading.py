import gc
import sys

import pytest

from galerne.kernel import uncollected, unnoticed


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_rests_while_modules_are_loaded_and_then_is_as_it_was(on: bool) -> None:
    try:
        if not on:
            gc.disable()
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == on
    finally:
        gc.enable()


def test_other_threads_get_their_turn_soon_while_modules_are_loaded_even_if_that_fails() -> None:
    usual_s = sys.getswitchinterval()
    with pytest.raises(ImportError), unnoticed():
        assert sys.getswitchinterval() < usual_s
        raise ImportError
    assert (sys.getswitchinterval(), gc.isenabled()) == (usual_s, True)
