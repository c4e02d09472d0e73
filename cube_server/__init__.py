"""The shard server."""
