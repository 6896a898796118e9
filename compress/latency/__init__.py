"""Latency that can be trusted: interleaved paired rounds, an A/A control, and three verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.latency.arms import noise as noise
    from compress.latency.bench_kit import pack as pack
    from compress.latency.bounds import Outcome as Outcome
    from compress.latency.bounds import parse as parse
    from compress.latency.comparison import Compared as Compared
    from compress.latency.comparison import Side as Side
    from compress.latency.comparison import compare as compare
    from compress.latency.comparison import find as find
    from compress.latency.comparison import side as side
    from compress.latency.explanation import Change as Change
    from compress.latency.explanation import Explained as Explained
    from compress.latency.explanation import LayerTiming as LayerTiming
    from compress.latency.explanation import changes as changes
    from compress.latency.explanation import explain as explain
    from compress.latency.explanation import outweighed as outweighed
    from compress.latency.explanation import summarise as summarise
    from compress.latency.imported_networks import ImportedNetworks as ImportedNetworks
    from compress.latency.input_selection import GAIN as GAIN
    from compress.latency.input_selection import TimedReader as TimedReader
    from compress.latency.input_selection import gains as gains
    from compress.latency.input_selection import readers as readers
    from compress.latency.input_selection import worthwhile as worthwhile
    from compress.latency.intervals import mean_ratio as mean_ratio
    from compress.latency.layer_shapes import LayerShape as LayerShape
    from compress.latency.matrix import Condition as Condition
    from compress.latency.matrix import cells as cells
    from compress.latency.matrix import measure_all as measure_all
    from compress.latency.matrix import try_out as try_out
    from compress.latency.measurement import LARGEST as LARGEST
    from compress.latency.measurement import Measurement as Measurement
    from compress.latency.measurement import identify as identify
    from compress.latency.measurement import read_measurement as read_measurement
    from compress.latency.onnx_files import describe_all as describe_all
    from compress.latency.onnx_files import file_arms as file_arms
    from compress.latency.profiling import Profile as Profile
    from compress.latency.profiling import profile as profile
    from compress.latency.profiling import read_graph as read_graph
    from compress.latency.protocol import measure as measure
    from compress.latency.result import LatencyResult as LatencyResult
    from compress.latency.result import MeasuringProgress as MeasuringProgress
    from compress.latency.result import Settings as Settings
    from compress.latency.statistics import P99_FROM as P99_FROM
    from compress.latency.statistics import Interval as Interval
    from compress.latency.statistics import LatencyVerdict as LatencyVerdict
    from compress.latency.table_measure import OnnxNetworks as OnnxNetworks
    from compress.latency.table_measure import block_of as block_of
    from compress.latency.table_networks import NETWORKS as NETWORKS
    from compress.latency.table_networks import SizedNetworks as SizedNetworks
    from compress.latency.table_networks import collect as collect
    from compress.latency.table_networks import machine as machine
    from compress.latency.table_networks import relative_times as relative_times
    from compress.latency.table_networks import table_of as table_of
    from compress.latency.torch_files import identify_network as identify_network
    from compress.latency.torch_files import network_opener as network_opener
    from compress.latency.torch_files import torch_runtimes as torch_runtimes
    from compress.latency.torch_networks import ModuleNetworks as ModuleNetworks
    from compress.latency.torch_profiling import profile_modules as profile_modules
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "bench_kit": "pack",
            "bounds": "Outcome parse",
            "comparison": "Compared Side compare find side",
            "explanation": "Change Explained LayerTiming changes explain outweighed summarise",
            "imported_networks": "ImportedNetworks",
            "input_selection": "GAIN TimedReader gains readers worthwhile",
            "intervals": "mean_ratio",
            "layer_shapes": "LayerShape",
            "matrix": "Condition cells measure_all try_out",
            "measurement": "LARGEST Measurement identify read_measurement",
            "arms": "noise",
            "onnx_files": "describe_all file_arms",
            "profiling": "Profile profile read_graph",
            "protocol": "measure",
            "result": "LatencyResult MeasuringProgress Settings",
            "statistics": "Interval LatencyVerdict P99_FROM",
            "torch_files": "identify_network network_opener torch_runtimes",
            "table_measure": "OnnxNetworks block_of",
            "table_networks": "NETWORKS SizedNetworks collect machine relative_times table_of",
            "torch_networks": "ModuleNetworks",
            "torch_profiling": "profile_modules",
        },
    )
