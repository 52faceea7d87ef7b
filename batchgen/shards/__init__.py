"""Shards on disk: how one is made and committed, what is read back of it, and who works on which."""
