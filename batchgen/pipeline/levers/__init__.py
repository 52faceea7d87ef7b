"""The levers change how the denoiser computes. Each is a field of the policy or of the speed settings."""
