"""A torch-free engine, and the commands that use it in place of the real one. A crash test starts in 0.2 s.

    python tests/fake_engine.py front job=... [overrides]     as python -m batchgen
    python tests/fake_engine.py worker RUN_DIR RANK WORLD     as python -m batchgen.worker

FAKE_STEP_S is how long a micro-batch takes; FAKE_NAN a key's part: such images are not finite, or of the kind that
FAKE_BAD names (black, blank, small, missing, sticky: the device fails for good). FAKE_BROKEN is the rank whose device
fails at every image. FAKE_ROWS is how many rows fit into memory at once; FAKE_LEAK_MIB is what each micro-batch leaks,
and a worker that has grown by ten times that is renewed.
"""

import hashlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batchgen.types import Decoded  # noqa: E402

LEAK_MIB = int(os.environ.get("FAKE_LEAK_MIB", "0"))
LEAKED: list[bytes] = []


class FakeEngine:
    """Images are bytes that follow from seed and prompt, as a model's would."""

    device_kind = "fake"
    dtype = "fp32"
    scheduler_name = "FakeScheduler"
    gauge = None
    beat = staticmethod(lambda: None)

    def prepare(self, policy):
        return policy, None

    def estimate(self, width, height):
        raise NotImplementedError

    def crop(self, latent, width_px, height_px):
        raise NotImplementedError

    def passes(self):
        raise NotImplementedError

    def is_out_of_memory(self, error):
        return isinstance(error, MemoryError)

    def recover(self):
        pass

    def collect(self):
        pass

    def encode(self, prompts):
        return {prompt.prompt: SimpleNamespace(cut=None) for prompt in prompts}

    def denoise(self, texts, prompts, policy):
        assert len(prompts) <= policy.micro_batch
        if len(prompts) > int(os.environ.get("FAKE_ROWS", "1000")):
            raise MemoryError("the device is full")
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0.002")))
        LEAKED.append(b"x" * (LEAK_MIB << 20))
        self.beat()
        return list(prompts)

    def decode(self, latents, policy):
        assert len(latents) <= policy.decode_chunk
        kind = os.environ.get("FAKE_BAD", "")
        bad = [prompt for prompt in latents if _is_bad(prompt)]
        if bad and kind == "sticky":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.beat()
        return [_image(prompt, kind) for prompt in latents if not (kind == "missing" and prompt in bad)]


def _is_bad(prompt):
    part = os.environ.get("FAKE_NAN")
    return bool(part) and part in prompt.key


def _image(prompt, kind):
    count = prompt.width * prompt.height * 3
    if _is_bad(prompt):
        pixels = {"black": bytes(count), "blank": b"\x7f\x80\x81" * (count // 3), "small": bytes(range(192))}
        return Decoded(pixels.get(kind), prompt.width, prompt.height, retried_in_fp32=True)
    seed = hashlib.sha256(f"{prompt.seed} {prompt.prompt} {prompt.guidance}".encode()).digest()
    return Decoded((seed * (count // len(seed) + 1))[:count], prompt.width, prompt.height)


def main():
    role = sys.argv.pop(1)
    if role == "worker":
        from batchgen.memory import growth
        from batchgen.worker import main as worker

        if os.environ.get("FAKE_BROKEN") == sys.argv[2]:
            os.environ |= {"FAKE_NAN": "-", "FAKE_BAD": "sticky"}
        if LEAK_MIB:
            growth.MOST_GROWN_BYTES = 10 * LEAK_MIB << 20
        sys.exit(worker(lambda plan: FakeEngine()))
    from batchgen.__main__ import main as front
    from batchgen.launch import local

    local.WORKER_COMMAND = [sys.executable, __file__, "worker"]
    front()


if __name__ == "__main__":
    main()
