"""The machine that batchgen runs on: its processes, GPUs and memory, mostly without torch."""
