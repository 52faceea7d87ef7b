"""A torch-free engine, and the commands that use it in place of the real one. A crash test starts in 0.2 s.

    python tests/fake_engine.py front job=... [overrides]     as python -m batchgen
    python tests/fake_engine.py join RUN_DIR                  as python -m batchgen.join
    python tests/fake_engine.py worker RUN_DIR RANK WORLD     as python -m batchgen.worker

FAKE_STEP_S is how long a micro-batch takes, FAKE_ROW_S what each of its padded rows adds, FAKE_PASS_S what each of them
adds in a step. FAKE_KIND is the device's kind. FAKE_NAN is a key's part:
such images are not finite, or of the kind that FAKE_BAD names (black, blank, small, missing; sticky, lost: the device
fails for good). FAKE_FLAGGED is a key's part: such images are flagged, as by a safety checker. Of a text, what is
beyond MOST_CHARS is cut. FAKE_BROKEN is the rank whose device fails at every image, FAKE_HANGING the one whose device
never comes back from its third micro-batch. FAKE_POISON is keys' parts: the worker dies of such a row, by the signal
that FAKE_DEATH names (SIGSEGV), or in its way (error: an exception; png: SIGSEGV, but while the image is encoded).
FAKE_POISONED is the rank whose device does so at every call. FAKE_UNABLE is the rank that cannot work, for FAKE_WHY
(no_cuda, full; hiccup: it cannot load twice). FAKE_ROWS is how many rows fit into memory at once; FAKE_LEAK_MIB is what
each micro-batch leaks, and a worker that has grown by ten times that is renewed. Worker k is loaded FAKE_APART_S times
k seconds late, and rows take the worker of rank FAKE_SLOW twice as long. FAKE_PLAN_S is how long planning waits first.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batchgen.errors import MemoryNeededError, ModelError  # noqa: E402
from batchgen.padding import padded_rows
from batchgen.shards.samples import SampleMaker
from batchgen.types import Decoded  # noqa: E402

LEAK_MIB = int(os.environ.get("FAKE_LEAK_MIB", "0"))
MOST_CHARS = 400  # of a text; the rest is cut
LEAKED: list[bytes] = []
STICKY = {"sticky": "an illegal memory access was", "lost": "uncorrectable ECC error"}


class FakeEngine:
    """Images are bytes that follow from seed and prompt, as a model's would."""

    device_kind = os.environ.get("FAKE_KIND", "fake")
    dtype = "fp32"
    scheduler_name = "FakeScheduler"
    gauge = None
    beat = staticmethod(lambda: None)

    def prepare(self, policy):
        return policy, None

    def warm_up(self, prompts, policy):
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
        texts = {text for prompt in prompts for text in (prompt.prompt, prompt.negative_text)}
        return {text: SimpleNamespace(cut=text[MOST_CHARS:] or None) for text in texts}

    def denoise(self, texts, prompts, policy):
        assert len(prompts) <= policy.micro_batch
        if len(prompts) > int(os.environ.get("FAKE_ROWS", "1000")):
            raise MemoryError("the device is full")
        rows_s = float(os.environ.get("FAKE_ROW_S", "0")) * padded_rows(len(prompts), policy.micro_batch)
        pass_s = float(os.environ.get("FAKE_PASS_S", "0")) * padded_rows(len(prompts), policy.micro_batch)
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0.002")) + rows_s + pass_s * prompts[0].steps)
        if len(LEAKED) == 2 and os.environ.get("FAKE_HANGING") in sys.argv[2:3]:
            time.sleep(3600)
        LEAKED.append(b"x" * (LEAK_MIB << 20))
        self.beat()
        if _is_named(prompts, "FAKE_POISON") and os.environ.get("FAKE_DEATH") != "png":
            _die()
        return list(prompts)

    def decode(self, latents, policy):
        assert len(latents) <= policy.decode_chunk
        kind = os.environ.get("FAKE_BAD", "")
        bad = [prompt for prompt in latents if _is_bad(prompt)]
        if bad and kind in STICKY:
            raise RuntimeError(f"CUDA error: {STICKY[kind]} encountered")
        self.beat()
        return [_image(prompt, kind) for prompt in latents if not (kind == "missing" and prompt in bad)]


def _is_named(prompts, variable):
    parts = os.environ.get(variable, "").split()
    return any(part in prompt.key for prompt in prompts for part in parts)


def _die():
    how = os.environ.get("FAKE_DEATH", "SIGSEGV")
    if how == "error":
        raise IndexError("index out of range in self")
    os.kill(os.getpid(), getattr(signal, "SIGSEGV" if how == "png" else how))
    time.sleep(60)  # a signal may take a moment to arrive


class DyingMaker(SampleMaker):
    """Of samples: dies of those that are named, once the next call has had time to begin."""

    def assemble(self, prompt, *arguments):
        if _is_named([prompt], "FAKE_POISON"):
            time.sleep(0.05)
            _die()
        return super().assemble(prompt, *arguments)


def load(rank):
    """The engine of this worker, or what it says where it cannot have one."""
    from batchgen.machine.gpus import check_reached

    time.sleep(float(os.environ.get("FAKE_APART_S", "0")) * int(rank))
    why = os.environ.get("FAKE_WHY") if os.environ.get("FAKE_UNABLE") == rank else None
    if why == "no_cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = "GPU-7"
        check_reached(False, "Found no NVIDIA driver on your system")
    if why == "full":
        raise MemoryNeededError("at least 9.00 GiB of free device memory are needed, but only 0.10 GiB are free")
    if why == "hiccup" and len(TRIED) < 2:
        TRIED.append(rank)
        raise ModelError("the model cannot be loaded: Stale file handle") from OSError(116, "Stale file handle")
    return FakeEngine()


TRIED: list[str] = []


def _is_bad(prompt):
    part = os.environ.get("FAKE_NAN")
    return bool(part) and part in prompt.key


def _image(prompt, kind):
    count = prompt.width * prompt.height * 3
    if _is_bad(prompt):
        pixels = {"black": bytes(count), "blank": b"\x7f\x80\x81" * (count // 3), "small": bytes(range(192))}
        return Decoded(pixels.get(kind), prompt.width, prompt.height, retried_in_fp32=True)
    seed = hashlib.sha256(f"{prompt.seed} {prompt.prompt} {prompt.guidance}".encode()).digest()
    part = os.environ.get("FAKE_FLAGGED")
    flagged = None if part is None else part in prompt.key
    return Decoded((seed * (count // len(seed) + 1))[:count], prompt.width, prompt.height, flagged=flagged)


def main():
    role = sys.argv.pop(1)
    if role == "worker":
        from batchgen.machine import growth
        from batchgen.worker import loop as worker

        rank = sys.argv[2]
        if os.environ.get("FAKE_BROKEN") == rank:
            os.environ |= {"FAKE_NAN": "-", "FAKE_BAD": "sticky"}
        if os.environ.get("FAKE_POISONED") == rank:
            os.environ["FAKE_POISON"] = "-"  # is in every key
        if os.environ.get("FAKE_DEATH") == "png":
            vars(worker)["SampleMaker"] = DyingMaker
        if LEAK_MIB:
            growth.MOST_GROWN_BYTES = 10 * LEAK_MIB << 20
        if os.environ.get("FAKE_SLOW") == rank:
            os.environ["FAKE_ROW_S"] = str(2 * float(os.environ["FAKE_ROW_S"]))
        from batchgen.worker.__main__ import main as work

        sys.exit(work(lambda plan: load(rank), lambda _: None))
    from batchgen.__main__ import main as front
    from batchgen.launch import local

    local.WORKER_COMMAND = [sys.executable, os.path.abspath(__file__), "worker"]
    if role == "join":
        from batchgen.join import main as join

        sys.exit(join())
    if "FAKE_PLAN_S" in os.environ:
        from batchgen import prepare, run

        def late(*inputs):
            time.sleep(float(os.environ["FAKE_PLAN_S"]))
            return prepare.prepare(*inputs)

        vars(run)["prepare"] = late
    front()


if __name__ == "__main__":
    main()
