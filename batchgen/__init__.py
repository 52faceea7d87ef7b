"""batchgen: prompt files in, whole webdataset tar shards and memory logs out, overnight, with one command."""

__version__ = "0.1.0"
