"""By the command: rows with different LoRA, packed by them, killed and resumed."""

import json

import pytest

pytest.importorskip("torch")

from diffusers import DiffusionPipeline

from batchgen.paths import RunDir
from batchgen.plan.store import load_plan
from tests import commands
from tests.commands import front, samples
from tests.models.families.test_sd import TestStableDiffusion as OfStableDiffusion
from tests.pipeline import loras


class TestLora:
    build = staticmethod(OfStableDiffusion.build)

    @pytest.mark.slow
    def test_rows_are_packed_by_lora_and_a_killed_run_comes_out_the_same(self, folder, tmp_path):
        pipe = DiffusionPipeline.from_pretrained(folder)
        loras.as_kohya(loras.layers(pipe, ("unet", "text_encoder"), 1), tmp_path / "a.safetensors", lambda _: 2.0)
        loras.as_diffusers(loras.layers(pipe, ("unet",), 2), tmp_path / "b.safetensors")
        cells = ["", "b.safetensors:0.5", "<none>", "a.safetensors+b.safetensors:0.3"]
        rows = [f"a horse {place // 4},{cells[place % 4]},{place // 4}" for place in range(24)]
        prompts = tmp_path / "p.csv"
        prompts.write_text("\n".join(["prompt,lora,seed", *rows]) + "\n")
        settings = [
            f"model.path={folder}", "model.lora=a.safetensors:0.8", "job.steps=2", "job.scheduler=model",
            "memory.policy.micro_batch=4", "output.batches_per_shard=1",
        ]  # fmt: skip
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        done = front(whole, prompts, *settings, command=commands.REAL, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        plan = load_plan(RunDir(whole))
        batches = [batch.prompts for shard in range(plan.shard_count) for batch in plan.shard(shard)[0].batches]
        assert all(len({prompt.lora for prompt in batch}) == 1 for batch in batches)
        assert {len(batch[0].lora) for batch in batches} == {0, 1, 2}
        code, _ = commands.kill_when(
            0.0, lambda: any(killed.glob("shards/*.tar")), commands.REAL, *commands.SMALL, f"run_dir={killed}",
            f"job.prompts={prompts}", *settings, cwd=tmp_path,
        )  # fmt: skip
        assert code != 0
        done = front(killed, prompts, *settings, command=commands.REAL, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert commands.verify(killed).returncode == 0
        assert samples(whole) == samples(killed)
        images = {json.loads(one)["lora"]: samples(whole)[name.replace(".json", ".png")]
                  for name, one in samples(whole).items() if name.endswith(".json") and b"horse 0" in one}  # fmt: skip
        assert sorted(images) == ["", "a.safetensors:0.8", "a.safetensors:1.0+b.safetensors:0.3", "b.safetensors:0.5"]
        assert len(set(images.values())) == 4
