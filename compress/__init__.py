"""Prune a trained convolutional network, prove that nothing broke, and deploy a faster ONNX file.

    import compress, compress_models
    network = compress.network_from(compress.load("resnet50.pt", zoo=compress_models.MODELS))
    data = compress.open_data("images/", preprocessing=network.preprocessing)
    result = compress.prune(network, data, compress.Job(target="macs", value=0.5), Path("runs/resnet50"))

Everything named in ``__all__`` is loaded on first use (PEP 562): importing this package loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.checkpoint import Architecture as Architecture
    from compress.checkpoint import Loaded as Loaded
    from compress.checkpoint import load as load
    from compress.checkpoint import save as save
    from compress.conclude import Result as Result
    from compress.config import Job as Job
    from compress.config import make_job as make_job
    from compress.data import Data as Data
    from compress.data import Preprocessing as Preprocessing
    from compress.data import open_data as open_data
    from compress.errors import CompressError as CompressError
    from compress.methods import METHODS as METHODS
    from compress.picking import pick as pick
    from compress.pipeline import Network as Network
    from compress.pipeline import inspect as inspect
    from compress.pipeline import network_from as network_from
    from compress.pipeline import network_of as network_of
    from compress.pipeline import prune as prune
    from compress.plan import Plan as Plan
    from compress.report.model import Report as Report
    from compress.rerouting import cuttable as cuttable
    from compress.topology import Topology as Topology

_HOMES = {
    "Architecture": "compress.checkpoint",
    "CompressError": "compress.errors",
    "Data": "compress.data",
    "Job": "compress.config",
    "Loaded": "compress.checkpoint",
    "METHODS": "compress.methods",
    "Network": "compress.pipeline",
    "Plan": "compress.plan",
    "Preprocessing": "compress.data",
    "Report": "compress.report.model",
    "Result": "compress.conclude",
    "Topology": "compress.topology",
    "cuttable": "compress.rerouting",
    "inspect": "compress.pipeline",
    "load": "compress.checkpoint",
    "make_job": "compress.config",
    "network_from": "compress.pipeline",
    "network_of": "compress.pipeline",
    "open_data": "compress.data",
    "pick": "compress.picking",
    "prune": "compress.pipeline",
    "save": "compress.checkpoint",
}

__all__ = [
    "METHODS",
    "Architecture",
    "CompressError",
    "Data",
    "Job",
    "Loaded",
    "Network",
    "Plan",
    "Preprocessing",
    "Report",
    "Result",
    "Topology",
    "cuttable",
    "inspect",
    "load",
    "make_job",
    "network_from",
    "network_of",
    "open_data",
    "pick",
    "prune",
    "save",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    found = getattr(import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
