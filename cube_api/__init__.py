"""Client of the shard servers."""
