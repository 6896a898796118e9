"""What a report shows of short trainings."""

from __future__ import annotations

from dataclasses import replace

from support.reports import SAMPLE

from compress.report import Finalist, Finalists, FinalistScore, report_markdown

FOUND = Finalists(
    rows=(
        Finalist("taken without training", "a", 0.5, None, 0.21, (FinalistScore(8, 0.19, 0.17, 0.21),)),
        Finalist(
            "obs, 2 branches | out",
            "b",
            0.49,
            None,
            0.25,
            (FinalistScore(8, 0.18, 0.16, 0.2), FinalistScore(16, 0.15)),
            won=True,
        ),
        Finalist("uniform l1", "c", 0.5, None, None, (FinalistScore(8, None),)),
    ),
    steps=40,
    image_forwards=20_480.0,
    images=1_000,
    why="the best of 3",
)


def test_every_score_with_its_interval_and_who_was_taken() -> None:
    text = report_markdown(replace(SAMPLE, finalists=FOUND))
    assert "19.00 (17.0 to 21.0)" in text and "after 16 steps" in text and "15.00" in text
    assert "taken: obs, 2 branches" in text and "(the best of 3)" in text and "40 training steps" in text and "20.5 k" in text
    rows = [line for line in text.splitlines() if "50.0 %" in line and "uniform l1" in line]
    assert len(rows) == 1 and rows[0].count("–") == 2, "what is not known is a dash"


def test_without_finalists_nothing_is_said() -> None:
    assert "Finalists" not in report_markdown(SAMPLE)
