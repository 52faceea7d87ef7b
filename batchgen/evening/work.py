"""How much there is to do: batches as they will run, without their texts. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchgen.padding import padded_rows, spans
from batchgen.types import Batch


@dataclass(frozen=True, slots=True)
class Job:
    """What decides how long a batch takes: its images' size in px, their steps, whether they have guidance, its rows.

    `rows` is how many images the batch has.
    """

    width: int
    height: int
    steps: int
    guided: bool
    rows: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px."""
        return self.width, self.height

    @property
    def pixel_steps(self) -> int:
        """Denoised pixels of all steps and passes: a rough measure of work, where nothing was measured."""
        return self.width * self.height * self.steps * self.rows * (2 if self.guided else 1)

    def calls(self, micro_batch: int, split: bool = False, strict: bool = False) -> Iterator[tuple[int, int]]:
        """(rows that the denoiser runs at once, passes) of each micro-batch; guidance runs two rows for an image.

        `split`: the two run one after the other. `strict`: the last micro-batch is padded to a whole one.
        """
        for span in spans(self.rows, micro_batch):
            rows = micro_batch if strict else padded_rows(len(span), micro_batch)
            at_once = 2 if self.guided and not split else 1
            yield rows * at_once, self.steps * (2 if self.guided and split else 1)


def job_of(batch: Batch) -> Job:
    """What a planned batch takes."""
    width, height, steps, guided, _ = batch.prompts[0].group
    return Job(width, height, steps, guided, len(batch.prompts))


def makespan_s(shards_s: Sequence[float], workers: int) -> float:
    """Seconds until the last shard is done, if each worker takes the next shard when it has finished one."""
    free_s = [0.0] * max(1, min(workers, len(shards_s)))
    for shard_s in shards_s:
        first = min(range(len(free_s)), key=free_s.__getitem__)
        free_s[first] += shard_s
    return max(free_s)
