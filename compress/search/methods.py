"""The methods by name: a searcher with its paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.core import validated
from compress.search.auto import Auto
from compress.search.base import Searcher
from compress.search.bicnn.upper import BiCnn
from compress.search.cluster import Cluster
from compress.search.csgd_clusters import Clusters
from compress.search.global_ranking import Ranked
from compress.search.obs import Allocated
from compress.search.smoea import Smoea
from compress.search.uniform import Uniform


@dataclass(frozen=True, slots=True)
class Method:
    """One way to decide which channels go.

    Attributes:
        searcher: a frozen dataclass whose fields are its parameters.
        summary: one line.
        citation: the paper.
    """

    searcher: type[Any]
    summary: str
    citation: str
    moments: bool = False
    """Whether the search stands on second moments of what the layers read."""
    reader_losses: bool = False
    """Whether it asks what each layer loses per channel that it stops reading."""
    kernels: bool = False
    """Whether it stands on the filters themselves."""
    ranks: bool = False
    """Whether the run's ``ranking`` decides which channels a width keeps; otherwise the method does."""
    clusters: bool = False
    """Whether its plans are clusters of filters, which only C-SGD can make real."""
    branches: bool = False
    """Whether its plans may leave branches out (ours)."""
    finalists: bool = False
    """Whether its best plans are trained a little beside closed forms before one is taken (ours)."""
    ranking: str = "l1"
    """What ``ranking = auto`` means."""

    def make(self, **parameters: Any) -> Searcher:
        """The searcher with these parameters over its defaults.

        Raises:
            ConfigError: a parameter does not take this value.
        """
        hint = "`compress methods` lists every option with its default"
        searcher: Searcher = validated(self.searcher, parameters, prefix="options.", hint=hint)
        return searcher


METHODS: Mapping[str, Method] = {
    "auto": Method(
        searcher=Auto,
        summary="closed forms (obs), or the evolution (smoea) where it was measured to pay; the report says which and why",
        citation="obs (this project, after structured optimal brain surgeon, Hassibi, Stork: NIPS 1992) or "
        "smoea (Li, Sun, Huang, Chen: arXiv 2211.01957), whichever the report names",
        moments=True,
        ranking="obs",
        branches=True,
        finalists=True,
    ),
    "smoea": Method(
        searcher=Smoea,
        summary="stage by stage, multi-objective evolution on sub-networks",
        citation="Li, Sun, Huang, Chen: Sub-network Multi-objective Evolutionary Algorithm for Filter Pruning, "
        "arXiv 2211.01957",
        moments=True,
        ranks=True,
        ranking="obs",
        branches=True,
        finalists=True,
    ),
    "bicnn": Method(
        searcher=BiCnn,
        summary="bi-level evolution: which filters stay, and which of them each layer reads",
        citation="Louati, Louati, Bechikh, Kariri: Joint filter and channel pruning of convolutional neural networks as a "
        "bi-level optimization problem, Memetic Computing 2024",
        moments=True,
        reader_losses=True,
        ranking="obs",
        branches=True,
        finalists=True,
    ),
    "cluster": Method(
        searcher=Cluster,
        summary="channels clustered by three features, cluster counts by differential evolution",
        citation="Sun, Chen, Wu, Li, Ma: A Clustering Pruning Method Based on Multidimensional Channel Information, NPL 2024",
        moments=True,
        kernels=True,
        branches=True,
        finalists=True,
    ),
    "csgd": Method(
        searcher=Clusters,
        summary="clusters of filters, trained until they are equal, trimmed without loss; no fine-tuning",
        citation="Ding, Ding, Guo, Han: Centripetal SGD for Pruning Very Deep Convolutional Networks with Complicated "
        "Structure, CVPR 2019",
        kernels=True,
        clusters=True,
    ),
    "obs": Method(
        searcher=Allocated,
        summary="compensated elimination: no evolution, one plan for every budget",
        citation="this project, after structured optimal brain surgeon (Hassibi, Stork: NIPS 1992)",
        moments=True,
        branches=True,
        finalists=True,
    ),
    "global": Method(
        searcher=Ranked,
        summary="one ranking of all channels of all layers, by l1 norm or another criterion",
        citation="Liu, Li, Shen, Huang, Yan, Zhang: Learning Efficient Convolutional Networks through Network "
        "Slimming, ICCV 2017",
        branches=True,
    ),
    "uniform": Method(
        searcher=Uniform,
        summary="the same share of every group, by l1 norm",
        citation="Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, ICLR 2017",
    ),
}


def behind(method: str, realise: str) -> tuple[str, ...]:
    """The methods that a run stands on: its searcher's, and C-SGD where that made the plan real."""
    return tuple(dict.fromkeys((method, "csgd"))) if realise == "csgd" else (method,)
