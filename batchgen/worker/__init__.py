"""The worker: it takes shards, makes them one after the other, and recovers from out-of-memory errors."""
