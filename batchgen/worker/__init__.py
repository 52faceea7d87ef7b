"""The worker: takes shards, makes them one after the other, and mends what memory refuses."""
