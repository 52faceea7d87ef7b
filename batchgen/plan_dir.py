"""PlanDir: the file names of a plan, or of a draft that becomes one."""

import uuid
from dataclasses import dataclass
from pathlib import Path

_SWEPT = ".swept"


@dataclass(frozen=True, slots=True)
class PlanDir:
    """The directory of one plan, or of a draft that becomes one, and the names in it."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def facts(self) -> Path:
        """The run id, what the plan was made from, and the digests of the other files; written last."""
        return self.root / "run.json"

    @property
    def rejects(self) -> Path:
        """The rows that could not be used, one JSON line each."""
        return self.root / "rejects.jsonl"

    @property
    def prompts(self) -> Path:
        """Copies of the prompt files that were fetched from addresses."""
        return self.root / "prompts"

    @property
    def owner(self) -> Path:
        """In a draft: which process makes it, and which plan it is to become."""
        return self.root / "owner.json"

    def shard(self, index: int) -> Path:
        """The prompts of a shard, in batches."""
        return self.root / f"{index:06d}.jsonl"

    def new_draft(self) -> "PlanDir":
        """A name that no other draft of this plan has."""
        return PlanDir(self.root.with_name(f"plan.{uuid.uuid4().hex}"))

    @property
    def swept(self) -> "PlanDir":
        """The name that a draft gets before it is removed, so that there is never half a draft."""
        return PlanDir(self.root.with_name(f"{self.root.name}{_SWEPT}"))

    @property
    def is_swept(self) -> bool:
        """Whether the name says that the draft is being removed."""
        return self.root.name.endswith(_SWEPT)
