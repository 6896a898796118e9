"""Images and what they are answered with: opened lazily, split disjointly, normalised as the network was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.data.batch_kinds import check_boxes as check_boxes
    from compress.data.batch_kinds import examples_in as examples_in
    from compress.data.dataset import Data as Data
    from compress.data.dataset import examined as examined
    from compress.data.dataset import given_preprocessing as given_preprocessing
    from compress.data.dataset import open_data as open_data
    from compress.data.given import GivenSplit as GivenSplit
    from compress.data.listing import TORCHVISION as TORCHVISION
    from compress.data.own_data import data_from as data_from
    from compress.data.pixels import to_pixels as to_pixels
    from compress.data.preprocessing import IMAGENET as IMAGENET
    from compress.data.preprocessing import Preprocessing as Preprocessing
    from compress.data.preprocessing import preset_for as preset_for
    from compress.data.sources import Unreadable as Unreadable
    from compress.data.sources import decode as decode
    from compress.data.split import Split as Split
    from compress.data.target_readers import NoSuchTargets as NoSuchTargets
    from compress.data.targets import TargetKind as TargetKind
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "batch_kinds": "check_boxes examples_in",
            "dataset": "Data examined given_preprocessing open_data",
            "given": "GivenSplit",
            "listing": "TORCHVISION",
            "own_data": "data_from",
            "pixels": "to_pixels",
            "preprocessing": "IMAGENET Preprocessing preset_for",
            "sources": "Unreadable decode",
            "split": "Split",
            "target_readers": "NoSuchTargets",
            "targets": "TargetKind",
        },
    )
