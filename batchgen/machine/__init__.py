"""The machine that batchgen runs on, asked without torch: processes, GPUs, memory."""
