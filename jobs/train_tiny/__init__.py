"""Training of the small Stable Diffusion that the package carries."""
