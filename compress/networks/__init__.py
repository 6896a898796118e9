"""Files into networks: checkpoints, architectures, and weights that are read as data."""
