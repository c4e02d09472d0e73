"""From a pass to shard tables."""
