"""The only place that knows diffusers."""

import os

# diffusers reads this once, when one of the modules here imports it. With it no code that comes with a model is run.
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
