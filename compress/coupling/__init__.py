"""Which channels belong together, read off one run of the network."""
