import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline import durations

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("2m30s", 150),
        ("1h", 3600),
        ("1d", 86400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("1d2h3m4s5ms", 93784.005),
    ],
)
def test_duration_says_its_seconds(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "5S",
        "5sec",
        "30s2m",
        "5s5s",
        "1h,5m",
        "5.s",
        ".5s",
        "1e3s",
        "\u0665s",
        "5s\n",
        "nans",
        "99999d",
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|longer than ten years"):
        durations.parse(text)


@given(
    st.lists(st.tuples(st.sampled_from(list(UNITS)), st.integers(0, 300)), unique_by=lambda part: part[0], min_size=1)
)
def test_parts_in_falling_order_add_up(parts: list[tuple[str, int]]) -> None:
    ordered = sorted(parts, key=lambda part: -UNITS[part[0]])
    text = "".join(f"{number}{unit}" for unit, number in ordered)
    assert durations.parse(text) == pytest.approx(sum(number * UNITS[unit] for unit, number in ordered), abs=1e-9)


@given(st.text())
def test_no_text_does_anything_but_parse_or_raise_value_error(text: str) -> None:
    try:
        assert 0 <= durations.parse(text) <= durations.LONGEST
    except ValueError as error:
        assert repr(text) in str(error)
