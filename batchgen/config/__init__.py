"""The configuration: its schema, which values are valid, and how Hydra composes it."""
