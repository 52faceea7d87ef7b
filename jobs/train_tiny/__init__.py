"""Training of the small Stable Diffusion that is bundled with the package."""
