"""Benchmarks, each run by `python -m tests.bench.NAME`; what they found last is in results/."""
