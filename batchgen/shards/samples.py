"""A decoded image and its prompt become a sample, which is the files that go into the tar under one key."""

from dataclasses import asdict, dataclass
from pathlib import PurePath

from batchgen import __version__
from batchgen.files import to_json
from batchgen.policy import Policy
from batchgen.quality import verdict
from batchgen.shards.images import encode_image
from batchgen.types import Decoded, Prompt, Sample


@dataclass(frozen=True, slots=True)
class SampleMaker:
    """What all samples of a worker share: the model that made them, and the image format."""

    model: str
    revision: str | None
    scheduler: str
    device: str
    image_format: str
    quality: int | None
    drop_flagged: bool = False
    left_out: frozenset[str] = frozenset()

    def assemble(self, prompt: Prompt, cut: str | None, image: Decoded, policy: Policy) -> Sample:
        """The sample: <key>.<png|jpg|webp>, .txt and .json, or a failed one with the reason.

        Its bytes depend only on the recipe: they hold no time, host or attempt.
        """
        if prompt.key in self.left_out:
            return Sample(prompt.key, "failed", reason="tried again in a later shard")
        if (reason := verdict(image)) is not None:
            return Sample(prompt.key, "failed", reason=reason)
        if image.flagged and self.drop_flagged:
            return Sample(prompt.key, "filtered", reason="flagged by the model's safety checker")
        about = {
            "key": prompt.key,
            "prompt": prompt.prompt,
            "negative_prompt": prompt.negative_prompt,
            "cut": cut,  # what the tokenizer had no room for
            "seed": prompt.seed,
            "width": prompt.width,
            "height": prompt.height,
            "steps": prompt.steps,
            "guidance": prompt.guidance,
            "scheduler": self.scheduler,
            "model": self.model,
            "revision": self.revision,
            "batchgen": __version__,
            "device": self.device,
            "policy": asdict(policy),
            "decoded_again_in_fp32": image.retried_in_fp32,
            "flagged": image.flagged,
            "status": "ok",
            "source": {"file": PurePath(prompt.source).name, "line": prompt.line},
            "row": prompt.extra,
        }
        files = {
            self.image_format: encode_image(image, self.image_format, self.quality),
            "txt": prompt.prompt.encode(),
            "json": to_json(about).encode(),
        }
        return Sample(prompt.key, "ok", files)
