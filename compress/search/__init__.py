"""Search: which channels go. NumPy and pymoo only; nothing here sees a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.search.auto import Auto as Auto
    from compress.search.auto import Case as Case
    from compress.search.base import Ask as Ask
    from compress.search.base import NamesCriteria as NamesCriteria
    from compress.search.base import Origin as Origin
    from compress.search.base import Planner as Planner
    from compress.search.base import Score as Score
    from compress.search.base import Search as Search
    from compress.search.base import Searcher as Searcher
    from compress.search.base import Told as Told
    from compress.search.bicnn.ordering import slices as slices
    from compress.search.csgd_clusters import clusters_at as clusters_at
    from compress.search.depth import depths as depths
    from compress.search.depth import last_of_each as last_of_each
    from compress.search.explained import MethodOption as MethodOption
    from compress.search.explained import options_of as options_of
    from compress.search.finalists import LEAST_PLANS as LEAST_PLANS
    from compress.search.finalists import MOST_PLANS as MOST_PLANS
    from compress.search.finalists import Contender as Contender
    from compress.search.finalists import Rated as Rated
    from compress.search.finalists import Round as Round
    from compress.search.finalists import contenders as contenders
    from compress.search.finalists import finals as finals
    from compress.search.finalists import halving as halving
    from compress.search.front import Fidelity as Fidelity
    from compress.search.front import Front as Front
    from compress.search.front import Point as Point
    from compress.search.front import Recovery as Recovery
    from compress.search.front import knee as knee
    from compress.search.front import non_dominated as non_dominated
    from compress.search.journal import Asked as Asked
    from compress.search.journal import Evaluate as Evaluate
    from compress.search.journal import Journal as Journal
    from compress.search.journal import drive as drive
    from compress.search.methods import METHODS as METHODS
    from compress.search.methods import behind as behind
    from compress.search.obs import plan_for as plan_for
    from compress.search.reader_loss import ReaderLoss as ReaderLoss
    from compress.search.smoea import Smoea as Smoea
    from compress.search.space import ChannelStatistics as ChannelStatistics
    from compress.search.space import CostModel as CostModel
    from compress.search.space import Space as Space
    from compress.search.space import Stage as Stage
    from compress.search.space import Target as Target
    from compress.search.stage_combination import controller as controller
    from compress.search.stages import is_stream as is_stream
    from compress.search.stages import make_stages as make_stages
    from compress.search.stages import prunable as prunable
    from compress.search.stages import skippable as skippable
    from compress.search.stages import whole_streams as whole_streams
    from compress.search.uniform import Uniform as Uniform
    from compress.search.widths import NARROW as NARROW
    from compress.search.widths import Widths as Widths
    from compress.search.widths import fill as fill
    from compress.search.widths import meet_widths as meet_widths
    from compress.search.widths import nearest as nearest
    from compress.search.widths import orbits as orbits
    from compress.search.widths import plan_at as plan_at
    from compress.search.widths import plan_of as plan_of
    from compress.search.widths import ranked as ranked
    from compress.search.widths import reachable as reachable
    from compress.search.widths import scaled as scaled
    from compress.search.widths import share_at as share_at
    from compress.search.widths import widths_of as widths_of
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "auto": "Auto Case",
            "base": "Ask NamesCriteria Origin Planner Score Search Searcher Told",
            "bicnn.ordering": "slices",
            "csgd_clusters": "clusters_at",
            "depth": "depths last_of_each",
            "explained": "MethodOption options_of",
            "finalists": "Contender LEAST_PLANS MOST_PLANS Rated Round contenders finals halving",
            "front": "Fidelity Front Point Recovery knee non_dominated",
            "journal": "Asked Evaluate Journal drive",
            "methods": "METHODS behind",
            "obs": "plan_for",
            "reader_loss": "ReaderLoss",
            "smoea": "Smoea",
            "space": "ChannelStatistics CostModel Space Stage Target",
            "stage_combination": "controller",
            "stages": "is_stream make_stages prunable skippable whole_streams",
            "uniform": "Uniform",
            "widths": "NARROW Widths fill meet_widths nearest orbits plan_at plan_of ranked reachable scaled share_at "
            "widths_of",
        },
    )
