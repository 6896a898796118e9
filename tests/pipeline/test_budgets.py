"""How many image-forwards a search may spend where nobody says it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compress.pipeline.job import Job
from compress.pipeline.preparation import search_budget

MACS = st.integers(1, 10**12)


@given(MACS, MACS, st.booleans())
def test_a_larger_network_gets_no_more(one: int, other: int, images: bool) -> None:
    small, large = sorted((one, other))
    few, many = (search_budget(Job(), macs, images=images) for macs in (large, small))
    assert few <= many


@given(MACS)
def test_synthetic_inputs_get_less_only_where_images_would_not_be_affordable(macs: int) -> None:
    scored, synthetic = (search_budget(Job(), macs, images=images) for images in (True, False))
    assert 1_000 <= synthetic <= scored
    assert synthetic == scored or scored == 5_000


@given(MACS, st.integers(100, 10**6), st.booleans())
def test_what_the_job_says_counts(macs: int, told: int, images: bool) -> None:
    assert search_budget(Job(budget=told), macs, images=images) == told
