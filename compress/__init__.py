"""Prune a trained convolutional network, prove that nothing broke, and deploy a faster ONNX file.

    import compress, compress_models
    network = compress.network_from(compress.load("resnet50.pt", zoo=compress_models.MODELS))
    data = compress.open_data("images/", preprocessing=network.preprocessing)
    result = compress.prune(network, data, compress.Job(target="macs", value=0.5), Path("runs/resnet50"))

Everything named in ``__all__`` is loaded on first use (PEP 562): importing this package loads neither torch nor numpy, and
the first use of ``prune`` loads little beyond torch; what costs more is imported where it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.core import Figure as Figure
    from compress.core import Plan as Plan
    from compress.core import TaskScore as TaskScore
    from compress.core import Topology as Topology
    from compress.data import Data as Data
    from compress.data import Preprocessing as Preprocessing
    from compress.data import data_from as data_from
    from compress.data import open_data as open_data
    from compress.errors import CompressError as CompressError
    from compress.networks import Architecture as Architecture
    from compress.networks import Loaded as Loaded
    from compress.networks import Network as Network
    from compress.networks import from_pretrained as from_pretrained
    from compress.networks import load as load
    from compress.networks import network_from as network_from
    from compress.networks import network_of as network_of
    from compress.networks import save as save
    from compress.pipeline import Decision as Decision
    from compress.pipeline import Job as Job
    from compress.pipeline import Result as Result
    from compress.pipeline import decide as decide
    from compress.pipeline import inspect as inspect
    from compress.pipeline import make_job as make_job
    from compress.pipeline import pick as pick
    from compress.pipeline import prune as prune
    from compress.pipeline import push as push
    from compress.pipeline import save_pretrained as save_pretrained
    from compress.report import Report as Report
    from compress.search import METHODS as METHODS
    from compress.surgery import cut as cut
    from compress.surgery import cuttable as cuttable
    from compress.tasks import Task as Task

    __version__: str

_HOMES = {
    "Architecture": "compress.networks.checkpoint",
    "CompressError": "compress.errors",
    "Data": "compress.data",
    "Decision": "compress.pipeline.deciding",
    "Figure": "compress.core.figures",
    "Job": "compress.pipeline.job",
    "Loaded": "compress.networks.checkpoint",
    "METHODS": "compress.search.methods",
    "Network": "compress.networks.network",
    "Plan": "compress.core.plan",
    "Preprocessing": "compress.data",
    "Report": "compress.report.model",
    "Result": "compress.pipeline.conclusion",
    "Task": "compress.tasks.base",
    "TaskScore": "compress.core.figures",
    "Topology": "compress.core.topology",
    "cut": "compress.surgery.cutting",
    "cuttable": "compress.surgery.rewriting",
    "data_from": "compress.data",
    "decide": "compress.pipeline.deciding",
    "from_pretrained": "compress.networks.pretrained",
    "inspect": "compress.pipeline.inspection",
    "load": "compress.networks.checkpoint",
    "make_job": "compress.pipeline.job",
    "network_from": "compress.networks.network",
    "network_of": "compress.networks.network",
    "open_data": "compress.data",
    "pick": "compress.pipeline.picking",
    "prune": "compress.pipeline.pruning",
    "push": "compress.pipeline.publishing",
    "save": "compress.networks.checkpoint",
    "save_pretrained": "compress.pipeline.publishing",
}

__all__ = [
    "METHODS",
    "Architecture",
    "CompressError",
    "Data",
    "Decision",
    "Figure",
    "Job",
    "Loaded",
    "Network",
    "Plan",
    "Preprocessing",
    "Report",
    "Result",
    "Task",
    "TaskScore",
    "Topology",
    "cut",
    "cuttable",
    "data_from",
    "decide",
    "from_pretrained",
    "inspect",
    "load",
    "make_job",
    "network_from",
    "network_of",
    "open_data",
    "pick",
    "prune",
    "push",
    "save",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("compress.core").version_of("smaller-convnets") or ""  # none where it is run from a checkout
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
