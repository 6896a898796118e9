"""Plain data that every other room speaks of: topology, plans, costs, files, statistics. No torch."""
