"""Shards on disk: how a shard is committed, what is read back from it, and who works on which."""
