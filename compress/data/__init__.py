"""Images and labels: opened lazily, split disjointly, normalised as the network was trained."""

from compress.data.preprocessing import PRESETS, Preprocessing, preset_for

__all__ = ["PRESETS", "Preprocessing", "preset_for"]
