"""The configuration: its schema, what is valid, and how Hydra composes it."""
