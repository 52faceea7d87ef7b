"""The only place that knows diffusers."""

import os

# diffusers reads it once, when it is imported, which several modules here do: no code that comes with a model is run.
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
