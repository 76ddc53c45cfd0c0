from galerne.gateway.purse import Purse
from galerne.metering.lease_book import HELD_MS

NOW_MS = 1_000_000


def granted(amount: int) -> Purse:
    purse = Purse("prepaid", "revenue")
    purse.granted("hold", amount, 0, NOW_MS + 60_000, NOW_MS)
    return purse


def test_what_was_granted_to_those_who_wait_is_not_given_back_before_they_come_for_it() -> None:
    purse = granted(100)
    assert purse.spent(NOW_MS, waiting=True) == []
    draw = purse.reserve(40, NOW_MS)
    assert draw is not None
    assert purse.spent(NOW_MS, waiting=True) == [], "a request is under way"
    purse.release(draw)
    assert [hold.id for hold in purse.spent(NOW_MS, waiting=True)] == ["hold"]


def test_what_nobody_comes_for_goes_back_after_two_seconds() -> None:
    purse = granted(100)
    assert purse.spent(NOW_MS + HELD_MS - 1, waiting=False) == []
    assert [hold.id for hold in purse.spent(NOW_MS + HELD_MS, waiting=False)] == ["hold"]
