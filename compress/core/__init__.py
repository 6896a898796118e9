"""Plain data that every other room speaks of: topology, plans, costs, files, statistics. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.faces import lazy as lazy

if TYPE_CHECKING:
    from compress.core.accuracy import Accuracy as Accuracy
    from compress.core.accuracy import Measured as Measured
    from compress.core.arrays import Bits as Bits
    from compress.core.arrays import Floats as Floats
    from compress.core.arrays import Indices as Indices
    from compress.core.branches import ACTIVATIONS as ACTIVATIONS
    from compress.core.branches import SKIPPED as SKIPPED
    from compress.core.branches import ZEROS as ZEROS
    from compress.core.branches import Branch as Branch
    from compress.core.branches import BranchId as BranchId
    from compress.core.branches import SkippedModule as SkippedModule
    from compress.core.branches import is_within as is_within
    from compress.core.branches import without_nested as without_nested
    from compress.core.cost import Cost as Cost
    from compress.core.cost import Share as Share
    from compress.core.cost import count as count
    from compress.core.cost import sizes_after as sizes_after
    from compress.core.entry_points import import_entrypoint as import_entrypoint
    from compress.core.entry_points import is_entrypoint as is_entrypoint
    from compress.core.environment import Environment as Environment
    from compress.core.environment import GpuState as GpuState
    from compress.core.environment import capture as capture
    from compress.core.environment import cores as cores
    from compress.core.environment import free_memory as free_memory
    from compress.core.environment import gpu_state as gpu_state
    from compress.core.environment import throttled as throttled
    from compress.core.environment import version_of as version_of
    from compress.core.events import Clock as Clock
    from compress.core.events import Listen as Listen
    from compress.core.events import Phase as Phase
    from compress.core.events import PhaseDone as PhaseDone
    from compress.core.events import Progressed as Progressed
    from compress.core.events import Table as Table
    from compress.core.events import Warned as Warned
    from compress.core.events import ignore as ignore
    from compress.core.figures import ERROR as ERROR
    from compress.core.figures import TOP1 as TOP1
    from compress.core.figures import Figure as Figure
    from compress.core.figures import TaskScore as TaskScore
    from compress.core.files import append as append
    from compress.core.files import aside as aside
    from compress.core.files import make_folder as make_folder
    from compress.core.files import read_bytes as read_bytes
    from compress.core.files import read_json as read_json
    from compress.core.files import read_text as read_text
    from compress.core.files import remove as remove
    from compress.core.files import user_cache as user_cache
    from compress.core.files import write as write
    from compress.core.files import write_json as write_json
    from compress.core.json_values import finite_json as finite_json
    from compress.core.latency_estimate import estimated as estimated
    from compress.core.latency_table import FEATURES as FEATURES
    from compress.core.latency_table import LatencyTable as LatencyTable
    from compress.core.latency_table import PredictionError as PredictionError
    from compress.core.latency_table import features as features
    from compress.core.latency_table import kind_of as kind_of
    from compress.core.latency_table import slow_layers as slow_layers
    from compress.core.locks import hold_folder as hold_folder
    from compress.core.notebooks import html_table as html_table
    from compress.core.notebooks import html_text as html_text
    from compress.core.plan import Cut as Cut
    from compress.core.plan import Plan as Plan
    from compress.core.plan import attribute_counts as attribute_counts
    from compress.core.plan import canonical as canonical
    from compress.core.plan import check as check
    from compress.core.plan import folds as folds
    from compress.core.plan import gone_keys as gone_keys
    from compress.core.plan import gone_modules as gone_modules
    from compress.core.plan import keep_all as keep_all
    from compress.core.plan import kept_positions as kept_positions
    from compress.core.plan import selectable as selectable
    from compress.core.randomness import derive as derive
    from compress.core.ranks import Ranks as Ranks
    from compress.core.ranks import leave_launcher as leave_launcher
    from compress.core.ranks import this_process as this_process
    from compress.core.restriction import compose as compose
    from compress.core.restriction import restrict as restrict
    from compress.core.restriction import widths as widths
    from compress.core.staging import folder_beside as folder_beside
    from compress.core.staging import sweep_beside as sweep_beside
    from compress.core.statistics import CONFIDENCE as CONFIDENCE
    from compress.core.statistics import Certificate as Certificate
    from compress.core.statistics import Difference as Difference
    from compress.core.statistics import Pool as Pool
    from compress.core.statistics import Right as Right
    from compress.core.statistics import bounded_mean as bounded_mean
    from compress.core.statistics import certificate as certificate
    from compress.core.statistics import difference as difference
    from compress.core.statistics import images_needed as images_needed
    from compress.core.statistics import mean_interval as mean_interval
    from compress.core.statistics import near_chance as near_chance
    from compress.core.statistics import pooled_difference as pooled_difference
    from compress.core.statistics import resampled as resampled
    from compress.core.statistics import share_interval as share_interval
    from compress.core.statistics import upper as upper
    from compress.core.statistics import wilson as wilson
    from compress.core.step import Step as Step
    from compress.core.suggestions import did_you_mean as did_you_mean
    from compress.core.suggestions import file_inside as file_inside
    from compress.core.suggestions import files_like as files_like
    from compress.core.suggestions import nearest as nearest
    from compress.core.text import csv_cell as csv_cell
    from compress.core.text import markdown as markdown
    from compress.core.text import markdown_block as markdown_block
    from compress.core.text import markdown_code as markdown_code
    from compress.core.text import plural as plural
    from compress.core.text import printable as printable
    from compress.core.toolkit_version import MadeBy as MadeBy
    from compress.core.toolkit_version import code_digest as code_digest
    from compress.core.toolkit_version import made_by as made_by
    from compress.core.topology import READS as READS
    from compress.core.topology import WIDTH_OF as WIDTH_OF
    from compress.core.topology import ChannelGroup as ChannelGroup
    from compress.core.topology import GroupId as GroupId
    from compress.core.topology import Layer as Layer
    from compress.core.topology import LayerName as LayerName
    from compress.core.topology import Member as Member
    from compress.core.topology import Role as Role
    from compress.core.topology import Slot as Slot
    from compress.core.topology import TensorInfo as TensorInfo
    from compress.core.topology import Topology as Topology
    from compress.core.topology import WidthAttribute as WidthAttribute
    from compress.core.validation import validated as validated
    from compress.core.waiting import seconds_of as seconds_of
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "accuracy": "Accuracy Measured",
            "arrays": "Bits Floats Indices",
            "branches": "ACTIVATIONS Branch BranchId SKIPPED SkippedModule ZEROS is_within without_nested",
            "cost": "Cost Share count sizes_after",
            "entry_points": "import_entrypoint is_entrypoint",
            "environment": "Environment GpuState capture cores free_memory gpu_state throttled version_of",
            "events": "Clock Listen Phase PhaseDone Progressed Table Warned ignore",
            "figures": "ERROR Figure TOP1 TaskScore",
            "files": "append aside make_folder read_bytes read_json read_text remove user_cache write write_json",
            "json_values": "finite_json",
            "latency_estimate": "estimated",
            "latency_table": "FEATURES LatencyTable PredictionError features kind_of slow_layers",
            "locks": "hold_folder",
            "toolkit_version": "MadeBy code_digest made_by",
            "notebooks": "html_table html_text",
            "plan": "Cut Plan attribute_counts canonical check folds gone_keys gone_modules keep_all kept_positions selectable",
            "randomness": "derive",
            "ranks": "Ranks leave_launcher this_process",
            "restriction": "compose restrict widths",
            "staging": "folder_beside sweep_beside",
            "statistics": "CONFIDENCE Certificate Difference Pool Right bounded_mean certificate difference images_needed "
            "mean_interval near_chance pooled_difference resampled share_interval upper wilson",
            "step": "Step",
            "suggestions": "did_you_mean file_inside files_like nearest",
            "text": "csv_cell markdown markdown_block markdown_code plural printable",
            "topology": "ChannelGroup GroupId Layer LayerName Member READS "
            "Role Slot TensorInfo Topology WIDTH_OF WidthAttribute",
            "validation": "validated",
            "waiting": "seconds_of",
        },
    )
