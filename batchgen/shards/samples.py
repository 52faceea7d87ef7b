"""A decoded image and its prompt become a sample, which is the files that go into the tar under one key.

Readers such as Hugging Face `datasets` take the type of each field of a sample's JSON from the first samples that they
see. So each field is in every sample and has one type: no field is null, and no object has members that others lack.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple, Self

from batchgen import __version__
from batchgen.config.loras import LORAS_JOINED
from batchgen.errors import ResumeError
from batchgen.files import to_json
from batchgen.plan.records import SAMPLE_FORM
from batchgen.plan.store import Plan
from batchgen.policy import Policy
from batchgen.quality import verdict
from batchgen.shards.images import MOST_TEXT_BYTES, encode_image
from batchgen.shards.infotext import infotext
from batchgen.stores.filesystem import is_address
from batchgen.types import Decoded, Prompt, Sample


class Cuts(NamedTuple):
    """The text beyond the tokenizer's limit, which was not drawn; "" where nothing was cut."""

    prompt: str = ""
    negative_prompt: str = ""


def cuts_of(texts: Any, prompt: Prompt) -> Cuts:
    """What was cut from a prompt. `texts` is what `Engine.encode` returned; unused negative prompts are not in it."""
    negative = texts[prompt.negative_text].cut if prompt.is_guided else None
    return Cuts(texts[prompt.prompt].cut or "", negative or "")


def file_names(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """The name of each prompt file in samples, by its path: its own, with the fewest folders that tell it from others.

    So the name says nothing of the machine, and moving all the files together changes no sample. A file that was
    fetched is named by its address. `groups` are the paths or addresses of the first plan's files, then those of each
    extension; files of later groups never change the name of a file.
    """
    names: dict[str, str] = {}
    tails: Counter[tuple[str, ...]] = Counter()
    for group in groups:
        given = [path for path in group if path not in names]
        names |= {path: path for path in given if is_address(path)}
        new = {path: PurePath(path).parts for path in given if path not in names}
        tails.update(parts[-count:] for parts in new.values() for count in range(1, len(parts) + 1))
        for path, parts in new.items():
            ends = (parts[-count:] for count in range(1, len(parts) + 1))
            names[path] = PurePath(*next((end for end in ends if tails[end] == 1), parts)).as_posix()
    return names


@dataclass(frozen=True, slots=True)
class SampleMaker:
    """What all samples of a worker share: the model that made them, and their form."""

    model: str
    revision: str
    scheduler: str
    device: str
    image_format: str
    quality: int | None
    safety_checker: str = "off"
    metadata: str = "none"
    form: int = SAMPLE_FORM
    names: Mapping[str, str] = field(default_factory=dict)  # of the prompt files, by their paths
    left_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: Plan, scheduler: str, device: str) -> Self:
        """The maker for a plan: `scheduler` and `device` are the engine's. Samples have the form the run began with.

        Raises ResumeError where a later version began it.
        """
        form = plan.segments[0].sample_form
        if form > SAMPLE_FORM:
            raise ResumeError(f"a later version of batchgen began {plan.run.root}: go on with that version")
        model, output = plan.planned.model, plan.planned.output
        folder = Path(model.path)  # where it was when the run was planned
        return cls(
            model=folder.name if folder.is_absolute() or folder.is_dir() else model.path,
            revision=model.revision or str(plan.recipe["model"]),
            scheduler=scheduler,
            device=device,
            image_format=output.format,
            quality=output.quality,
            safety_checker=model.safety_checker,
            metadata=output.metadata,
            form=form,
            names=file_names([one["file"] for one in segment.inputs] for segment in plan.segments),
        )

    def assemble(self, prompt: Prompt, cuts: Cuts, image: Decoded, policy: Policy) -> Sample:
        """The sample: <key>.<png|jpg|webp>, .txt and .json, or a failed one with the reason.

        Its bytes depend only on the recipe: they hold no time, host or attempt.
        """
        if prompt.key in self.left_out:
            return Sample(prompt.key, "failed", reason="tried again in a later shard")
        if (reason := verdict(image)) is not None:
            return Sample(prompt.key, "failed", reason=reason)
        if image.flagged and self.safety_checker == "drop":
            return Sample(prompt.key, "filtered", reason="flagged by the model's safety checker")
        describe = self._describe if self.form > 1 else self._describe_first
        text = None
        if self.metadata == "a1111":
            text = infotext(prompt, self.scheduler, self.model, MOST_TEXT_BYTES.get(self.image_format))
        files = {
            self.image_format: encode_image(image, self.image_format, self.quality, text),
            "txt": prompt.prompt.encode(),
            "json": to_json(describe(prompt, cuts, image, policy)).encode(),
        }
        return Sample(prompt.key, "ok", files)

    def _describe(self, prompt: Prompt, cuts: Cuts, image: Decoded, policy: Policy) -> dict[str, Any]:
        # docs/reading.md tells what each field holds. A change of any name or type is a new SAMPLE_FORM.
        return {
            "key": prompt.key,
            "prompt": prompt.prompt,
            "negative_prompt": prompt.negative_prompt,
            "cut": cuts.prompt,
            "negative_cut": cuts.negative_prompt,
            **self._settings(prompt, image, policy),
            "safety_checker": self.safety_checker,
            "flagged": bool(image.flagged),
            "status": "ok",
            **(_loras(prompt) if self.form > 2 or prompt.lora else {}),
            "source": {"file": self.names.get(prompt.source, PurePath(prompt.source).name), "line": prompt.line},
            # As text, since no two rows need to have the same columns, nor a column the same type in each row.
            "row_json": json.dumps(prompt.extra, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
        }

    def _describe_first(self, prompt: Prompt, cuts: Cuts, image: Decoded, policy: Policy) -> dict[str, Any]:
        # Form 1, in which the runs go on that were begun with it
        return {
            "key": prompt.key,
            "prompt": prompt.prompt,
            "negative_prompt": prompt.negative_prompt,
            "cut": cuts.prompt or None,
            **self._settings(prompt, image, policy),
            "flagged": image.flagged,
            "status": "ok",
            "source": {"file": PurePath(prompt.source).name, "line": prompt.line},
            "row": prompt.extra,
        }

    def _settings(self, prompt: Prompt, image: Decoded, policy: Policy) -> dict[str, Any]:
        return {
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
            "policy": {name: value for name, value in asdict(policy).items() if self.form > 3 or name != "compile"},
            "decoded_again_in_fp32": image.retried_in_fp32,
        }


def _loras(prompt: Prompt) -> dict[str, str]:
    # As in the column lora, but without folders, which say something of the machine
    named = (f"{PurePath(one.path).name}:{one.weight!r}" for one in prompt.lora)
    return {"lora": LORAS_JOINED.join(named), "lora_sha256": LORAS_JOINED.join(one.sha256 for one in prompt.lora)}
