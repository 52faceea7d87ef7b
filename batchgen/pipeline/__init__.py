"""The only place that knows diffusers."""
