"""One frozen report, rendered as JSON, Markdown and a terminal table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.report.candidates import Finalist as Finalist
    from compress.report.candidates import Finalists as Finalists
    from compress.report.candidates import FinalistScore as FinalistScore
    from compress.report.candidates import FrontLatency as FrontLatency
    from compress.report.comparison import ComparedRun as ComparedRun
    from compress.report.comparison import Comparison as Comparison
    from compress.report.comparison import Summary as Summary
    from compress.report.comparison import comparison_markdown as comparison_markdown
    from compress.report.comparison import comparison_table as comparison_table
    from compress.report.comparison import states as states
    from compress.report.comparison import summary as summary
    from compress.report.formatting import NONE as NONE
    from compress.report.formatting import byte_size as byte_size
    from compress.report.formatting import certified as certified
    from compress.report.formatting import changed as changed
    from compress.report.formatting import clock_name as clock_name
    from compress.report.formatting import duration as duration
    from compress.report.formatting import expected as expected
    from compress.report.formatting import judged as judged
    from compress.report.formatting import number as number
    from compress.report.formatting import percent as percent
    from compress.report.formatting import score_text as score_text
    from compress.report.formatting import scores as scores
    from compress.report.formatting import sizes as sizes
    from compress.report.formatting import speed_in_words as speed_in_words
    from compress.report.formatting import times as times
    from compress.report.formatting import typeset as typeset
    from compress.report.fronts import front_latency as front_latency
    from compress.report.fronts import told as told
    from compress.report.html import runs_page as runs_page
    from compress.report.imported import take_in as take_in
    from compress.report.markdown import report_markdown as report_markdown
    from compress.report.model import BranchSpan as BranchSpan
    from compress.report.model import Latency as Latency
    from compress.report.model import Report as Report
    from compress.report.model import Sensitivity as Sensitivity
    from compress.report.model import Size as Size
    from compress.report.model import Width as Width
    from compress.report.model_card import card_text as card_text
    from compress.report.notebook import notebook_html as notebook_html
    from compress.report.plots import comparison_svg as comparison_svg
    from compress.report.plots import front_svg as front_svg
    from compress.report.side_by_side import differences as differences
    from compress.report.side_by_side import runs_markdown as runs_markdown
    from compress.report.side_by_side import runs_table as runs_table
    from compress.report.store import HTML as HTML
    from compress.report.store import page_of as page_of
    from compress.report.store import read_report as read_report
    from compress.report.store import report_text as report_text
    from compress.report.store import write_report as write_report
    from compress.report.tables import front_latency_table as front_latency_table
    from compress.report.timm_csv import to_timm_csv as to_timm_csv
    from compress.report.verdict import Scoring as Scoring
    from compress.report.verdict import flags as flags
    from compress.report.verdict import latency_of as latency_of
    from compress.report.verdict import missed_drop as missed_drop
    from compress.report.verdict import useful as useful
    from compress.report.verdict import verdict_sentence as verdict_sentence
    from compress.report.verification import verified as verified
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "candidates": "Finalist FinalistScore Finalists FrontLatency",
            "comparison": "Comparison ComparedRun Summary comparison_markdown comparison_table states summary",
            "formatting": "NONE byte_size certified changed clock_name speed_in_words "
            "duration expected judged number percent score_text scores sizes times typeset",
            "fronts": "front_latency told",
            "html": "runs_page",
            "imported": "take_in",
            "markdown": "report_markdown",
            "model_card": "card_text",
            "model": "BranchSpan Latency Report Sensitivity Size Width",
            "notebook": "notebook_html",
            "plots": "comparison_svg front_svg",
            "side_by_side": "differences runs_markdown runs_table",
            "store": "HTML page_of read_report report_text write_report",
            "tables": "front_latency_table",
            "timm_csv": "to_timm_csv",
            "verdict": "Scoring flags latency_of missed_drop useful verdict_sentence",
            "verification": "verified",
        },
    )
