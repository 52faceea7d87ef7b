"""Images by Ray Data and diffusers, as its documents advise for batch inference: one actor, webdataset tars.

python tests/bench/peer_ray.py MODEL PROMPTS DIR STEPS GUIDANCE BATCH     with ray[data] installed
"""

import io
import os
import sys

import ray


class Painter:
    """The actor that has the pipeline."""

    def __init__(self, model, steps, guidance):
        import torch
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        torch.set_num_threads(os.cpu_count() or 1)
        self.pipe = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)
        self.given = {"num_inference_steps": steps, "guidance_scale": guidance}

    def __call__(self, batch):
        prompts = [str(one) for one in batch["text"]]
        images = self.pipe(prompts, **self.given).images
        return {"__key__": [str(one) for one in batch["id"]], "png": [_png(one) for one in images], "txt": prompts}


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def main():
    model, prompts, to, steps, guidance, batch = sys.argv[1:]
    ray.init(log_to_driver=False)
    with open(prompts) as file:
        rows = [{"id": f"{place:09d}", "text": line.rstrip("\n")} for place, line in enumerate(file)]
    made = ray.data.from_items(rows).map_batches(
        Painter,
        fn_constructor_args=(model, int(steps), float(guidance)),
        batch_size=int(batch),
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    os.makedirs(to)
    made.write_webdataset(to, encoder=None)  # what is written is bytes already


if __name__ == "__main__":
    main()
