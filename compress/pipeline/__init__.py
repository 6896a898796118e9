"""Whole runs: prune, pick, inspect, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.pipeline.compared_method import MethodComparison as MethodComparison
    from compress.pipeline.compared_method import entry as entry
    from compress.pipeline.comparison import compare_methods as compare_methods
    from compress.pipeline.conclusion import Result as Result
    from compress.pipeline.conclusion import finished as finished
    from compress.pipeline.deciding import Decision as Decision
    from compress.pipeline.deciding import decide as decide
    from compress.pipeline.external import Prune as Prune
    from compress.pipeline.front import choose as choose
    from compress.pipeline.front import read_front as read_front
    from compress.pipeline.front_latency import clock_front as clock_front
    from compress.pipeline.inspection import Inspection as Inspection
    from compress.pipeline.inspection import inspect as inspect
    from compress.pipeline.inspection import traced as traced
    from compress.pipeline.job import Job as Job
    from compress.pipeline.job import make_job as make_job
    from compress.pipeline.job import read_settings as read_settings
    from compress.pipeline.job import stored_values as stored_values
    from compress.pipeline.latency_tables import Measuring as Measuring
    from compress.pipeline.latency_tables import alignment as alignment
    from compress.pipeline.latency_tables import load as load
    from compress.pipeline.latency_tables import make as make
    from compress.pipeline.latency_tables import networks_of as networks_of
    from compress.pipeline.latency_tables import source_of as source_of
    from compress.pipeline.latency_target import clocking as clocking
    from compress.pipeline.latency_target import latency_trials as latency_trials
    from compress.pipeline.module_files import check_torch_runtimes as check_torch_runtimes
    from compress.pipeline.module_files import module_opener as module_opener
    from compress.pipeline.module_files import of_torch as of_torch
    from compress.pipeline.module_files import pair_of as pair_of
    from compress.pipeline.module_files import torch_runtime as torch_runtime
    from compress.pipeline.module_files import write_module as write_module
    from compress.pipeline.picking import pick as pick
    from compress.pipeline.precision_latency import measure_precision as measure_precision
    from compress.pipeline.preparation import prepare as prepare
    from compress.pipeline.pruning import prune as prune
    from compress.pipeline.publishing import push as push
    from compress.pipeline.publishing import save_pretrained as save_pretrained
    from compress.pipeline.run import Run as Run
    from compress.pipeline.run import with_task as with_task
    from compress.pipeline.tracking import TRACKERS as TRACKERS
    from compress.pipeline.tracking import need_trackers as need_trackers
    from compress.pipeline.tracking import tracked as tracked
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "compared_method": "MethodComparison entry",
            "comparison": "compare_methods",
            "conclusion": "Result finished",
            "deciding": "Decision decide",
            "external": "Prune",
            "front": "choose read_front",
            "front_latency": "clock_front",
            "inspection": "Inspection inspect traced",
            "job": "Job make_job read_settings stored_values",
            "latency_tables": "Measuring alignment load make networks_of source_of",
            "latency_target": "clocking latency_trials",
            "module_files": "check_torch_runtimes module_opener of_torch pair_of torch_runtime write_module",
            "picking": "pick",
            "precision_latency": "measure_precision",
            "preparation": "prepare",
            "pruning": "prune",
            "publishing": "push save_pretrained",
            "run": "Run with_task",
            "tracking": "TRACKERS need_trackers tracked",
        },
    )
