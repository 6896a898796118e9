"""Foreign errors are told on one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compress.errors import one_line


@given(st.text(), st.integers(1, 50))
def test_one_line_of_bounded_length(text: str, most: int) -> None:
    told = one_line(text, most)
    assert len(told.splitlines()) <= 1 and len(told) <= most + 3
    assert one_line(text, None) == " ".join(text.split())
    assert told == one_line(text, None) or told.endswith("...")


def test_an_error_without_words_is_told_by_its_type() -> None:
    assert one_line(KeyError()) == "KeyError" and one_line(ValueError(" a\n b ")) == "a b" and one_line("") == ""
