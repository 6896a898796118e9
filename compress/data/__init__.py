"""Images and labels: opened lazily, split disjointly, normalised as the network was trained."""

from compress.data.dataset import Data, near_chance, open_data
from compress.data.preprocessing import PRESETS, Preprocessing, preset_for
from compress.data.split import Split

__all__ = ["PRESETS", "Data", "Preprocessing", "Split", "near_chance", "open_data", "preset_for"]
