"""What changes how the denoiser computes: each lever is a field of the policy or of the speed settings."""
