"""The plan of a run: rows become batches and shards, cut once, kept on disk, and what must not change in it."""
