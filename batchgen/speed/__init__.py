"""How fast the model computes: which levers of speed pay for a job, by measurement."""
