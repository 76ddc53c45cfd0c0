import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.governance import Zones, check_within, checked_zones, common_zones
from galerne.kernel import BadRequest

zones = st.none() | st.frozensets(st.sampled_from(["eu", "fr", "us", "on-prem"]))


@pytest.mark.parametrize("good", [["eu"], ["eu", "fr", "eu"], ["on-prem"], ["eu-west-3"], ["0"], ["a" * 40]])
def test_a_zone_is_a_lower_case_slug(good: list[str]) -> None:
    assert checked_zones(good) == frozenset(good)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        ["EU"],
        ["e u"],
        ["-eu"],
        ["eu-"],
        ["eu--fr"],
        ["é"],
        [""],
        ["a" * 41],
        ["eu\n"],
        [f"z{n}" for n in range(51)],
    ],
)
def test_what_is_no_zone_is_refused_and_so_are_none_and_too_many(bad: list[str]) -> None:
    with pytest.raises(BadRequest) as refusal:
        checked_zones(bad)
    assert refusal.value.param == "zones"


def test_no_zones_at_all_is_anywhere() -> None:
    assert checked_zones(None) is None
    assert common_zones() is None
    assert common_zones(None, None) is None


@given(st.lists(zones, max_size=4))
def test_what_several_allow_is_never_more_than_any_of_them_allows(allowed: list[Zones]) -> None:
    common = common_zones(*allowed)
    for each in allowed:
        if each is not None:
            assert common is not None
            assert common <= each
    assert (common is None) == all(each is None for each in allowed)


def test_zones_that_exclude_one_another_leave_none_and_not_anywhere() -> None:
    assert common_zones(["eu"], None, ["us"]) == frozenset()


@pytest.mark.parametrize(
    ("wanted", "ceiling", "fits"),
    [
        (None, None, True),
        (None, {"eu"}, True),
        ({"us"}, None, True),
        ({"eu"}, {"eu", "fr"}, True),
        ({"eu", "us"}, {"eu"}, False),
        ({"eu"}, set[str](), False),
    ],
)
def test_zones_can_only_be_narrowed(wanted: set[str] | None, ceiling: set[str] | None, fits: bool) -> None:
    asked = None if wanted is None else frozenset(wanted)
    above = None if ceiling is None else frozenset(ceiling)
    if fits:
        check_within(asked, above)
    else:
        with pytest.raises(BadRequest, match=r"narrowed|no zone left"):
            check_within(asked, above)
