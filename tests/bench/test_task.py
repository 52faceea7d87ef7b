"""How a pipeline of diffusers is called for a task."""

from batchgen.bench.task import Task


class Pipe:
    def __call__(self, prompt, height=None, width=None, num_inference_steps=50, guidance_scale=7.5, output_type="pil"):
        return prompt, height, width, num_inference_steps, guidance_scale, output_type


class TrueCfg:
    def __call__(self, prompt, height, width, num_inference_steps, negative_prompt=None, true_cfg_scale=4.0):
        return prompt, negative_prompt, true_cfg_scale


def test_each_prompt_is_another_one_and_settings_are_those_of_the_task():
    prompts, *rest = Task(64, 128, 3, 5.0).call(Pipe(), 3, output_type="pt")
    assert len(set(prompts)) == 3 and rest == [128, 64, 3, 5.0, "pt"]


def test_the_scale_goes_under_the_keyword_that_the_pipeline_has():
    prompts, negative, scale = Task(64, 64, 3, 5.0, keyword="true_cfg_scale").call(TrueCfg(), 2)
    assert scale == 5.0 and len(negative) == len(prompts) == 2  # without negatives it would not be guided
