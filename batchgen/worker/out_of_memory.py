"""The stages of an engine, each run under the policy of its size: an out-of-memory error never ends a run.

A stage that fails is repeated from the last good tensor: once under the same policy, since memory may have been short
for a moment, and if it fails again under the next smaller policy, which then holds for that size, even after a restart.

Under determinism=strict every row runs among as many rows as in a whole batch, and no other policy is allowed: a stage
that fails twice ends the worker.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from batchgen.engine import Engine, Latent
from batchgen.errors import BatchgenError, DeviceError, MemoryNeededError
from batchgen.events import EventLog
from batchgen.memory.stepdown import step_down
from batchgen.padding import pad, padded_rows
from batchgen.policy import Policy
from batchgen.types import Decoded, Prompt

Size = tuple[int, int]
"""Width and height in pixels."""


class Policies(Protocol):
    """Knows the policy that images of a size are made under, and remembers policies that did not fit."""

    def of(self, width: int, height: int) -> Policy:
        """The policy for images of this size."""

    def placements(self, width: int, height: int) -> Collection[str]:
        """The placements that the host has the memory for."""

    def step_down(self, width: int, height: int, policy: Policy) -> None:
        """Use this policy for the size from now on."""


class Fitting:
    """Runs the stages of an engine, each under the policy of its size. `ooms` counts out-of-memory errors."""

    def __init__(self, engine: Engine, policies: Policies, log: EventLog, strict_rows: int | None = None) -> None:
        """`strict_rows`: the rows of a whole batch under determinism=strict; None under best."""
        self._engine = engine
        self._chosen = policies
        self._strict_rows = strict_rows
        self._log = log
        self._policies: dict[Size, Policy] = {}
        self._failed: set[tuple[str, Size, Policy]] = set()
        self._stepped_down: set[Size] = set()  # to a policy that has not succeeded yet
        self._replaced: set[Policy] = set()
        self._has_stepped = False
        self.ooms = 0

    def begin(self, size: Size) -> Policy:
        """Set the engine up for images of this size; return the policy that they begin with."""
        self._policies.setdefault(size, self._chosen.of(*size))
        while True:
            wanted = self._policies[size]
            answer, refused = self._try(self._engine.prepare, wanted)
            if refused is None:
                break
            self._mend("load", size, refused)
        self._policies[size], why = answer
        lost_graphs = answer[0] == wanted.without_graphs != wanted  # which changes no bit
        if why is not None and not lost_graphs and self._strict_rows is not None:
            raise DeviceError(
                f"this device cannot run the run's policy for {size[0]}x{size[1]} px ({why}), and determinism=strict "
                "allows no other: start a new run with other settings, or with determinism=best"
            )
        if why is not None and wanted not in self._replaced:
            self._replaced.add(wanted)
            self._log.add("policy_replaced", wanted=asdict(wanted), used=asdict(answer[0]), why=why)
        return self._policies[size]

    def warm_up(self, size: Size, compile: Callable[[int, int, Policy], None]) -> None:
        """Have `compile` warm up the policy of this size. If memory is refused twice, less is compiled, or nothing."""
        while (policy := self.begin(size)).compile != "eager":
            _, refused = self._try(compile, *size, policy)
            if refused is None:
                return
            self._mend("compile", size, refused)

    def encode(self, size: Size, prompts: Sequence[Prompt]) -> Any:
        """The prompts' texts, encoded."""
        while True:
            texts, refused = self._try(self._engine.encode, prompts)
            if refused is None:
                self._remember(size)
                return texts
            self._retry("encode", size, refused)

    def denoise(self, size: Size, texts: Any, prompts: Sequence[Prompt]) -> list[Latent]:
        """A latent for each prompt."""
        if not self._has_stepped:
            self._note_first_step()
        made: list[Latent] = []
        while len(made) < len(prompts):
            policy = self._policies[size]
            rows = prompts[len(made) : len(made) + policy.micro_batch]
            run = self._filled(rows, policy)
            tensors, refused = self._try(self._engine.denoise, texts, run, policy)
            if refused is None:
                _expect("latents", len(tensors), len(run))
                self._remember(size)
                made += [Latent(tensor, policy) for tensor in tensors[: len(rows)]]
            else:
                together = padded_rows(len(run), policy.micro_batch)
                self._retry("denoise", size, refused, together, rows[0].is_guided)
        return made

    def _note_first_step(self) -> None:
        """Have the log say when the first denoising step of this worker is done."""
        self._has_stepped = True
        beat = self._engine.beat

        def first() -> None:
            self._engine.beat = beat
            self._log.add("first_step")
            beat()

        self._engine.beat = first

    def decode(self, size: Size, latents: Sequence[Latent]) -> list[tuple[Decoded, Policy]]:
        """An image for each latent, and the policy it was made under."""
        made: list[tuple[Decoded, Policy]] = []
        while len(made) < len(latents):
            policy = self._policies[size]
            rows = latents[len(made) : len(made) + policy.decode_chunk]
            images, refused = self._try(self._engine.decode, [row.tensor for row in rows], policy)
            if refused is None:
                _expect("images", len(images), len(rows))
                self._remember(size)
                made += [(image, _merged(row.policy, policy)) for image, row in zip(images, rows, strict=True)]
            else:
                self._retry("decode", size, refused)
        return made

    def _filled(self, rows: Sequence[Prompt], policy: Policy) -> Sequence[Prompt]:
        # Under strict, as many rows as in a micro-batch of a whole batch: a row's low bits depend on how many rows run
        if self._strict_rows is None:
            return rows
        whole = padded_rows(self._strict_rows, policy.micro_batch)
        return [rows[place] for place in pad(range(len(rows)), whole)]

    def _try(self, work: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        # The result, or what the device said when it refused memory. The exception must be gone when this returns,
        # because its traceback holds the tensors that filled the memory.
        try:
            return work(*arguments), None
        except Exception as error:
            if not self._engine.is_out_of_memory(error):
                raise
            return None, str(error).strip().partition("\n")[0] or type(error).__name__

    def _retry(self, stage: str, size: Size, refused: str, rows: int | None = None, guided: bool = True) -> None:
        self._mend(stage, size, refused, rows, guided)
        self.begin(size)

    def _mend(self, stage: str, size: Size, refused: str, rows: int | None = None, guided: bool = True) -> None:
        # `rows`: how many rows were denoised at once, if fewer than the micro-batch; `guided`: whether with guidance
        self.ooms += 1
        policy = self._policies[size]
        self._engine.recover()
        before = (stage, size, policy)
        # Graphs go first, and the micro-batch stays.
        tried = policy if rows is None or policy.compile == "graphs" else replace(policy, micro_batch=rows)
        placements = self._chosen.placements(*size)
        smaller = step_down(tried, stage, *size, guided, placements) if before in self._failed else policy
        self._failed.add(before)
        self._log.add(
            "out_of_memory", stage=stage, width=size[0], height=size[1], said=refused, policy=asdict(policy),
            next=asdict(smaller) if smaller else None,
        )  # fmt: skip
        if smaller not in (None, policy, policy.without_graphs) and self._strict_rows is not None:
            raise MemoryNeededError(
                f"{size[0]}x{size[1]} px ran out of memory twice ({stage}: {refused}), and determinism=strict allows "
                "no smaller policy: free memory on the device, or start a new run with a smaller memory.policy"
            )
        if smaller is None:
            raise BatchgenError(
                f"{size[0]}x{size[1]} px do not fit into this device's memory under any policy that the host has the "
                f"memory for ({stage}: {refused}): free memory on the device, or make smaller images"
            )
        self._policies[size] = smaller
        if smaller != policy:
            self._stepped_down.add(size)

    def _remember(self, size: Size) -> None:
        # A smaller policy did what the larger one could not, so the run begins with it from now on.
        if size in self._stepped_down:
            self._stepped_down.remove(size)
            self._chosen.step_down(*size, self._policies[size])


def _expect(what: str, given: int, asked: int) -> None:
    if given != asked:
        raise BatchgenError(f"the model gave {given} {what} for {asked} prompts; none of them was written")


def _merged(denoised: Policy, decoded: Policy) -> Policy:
    return replace(
        decoded,
        micro_batch=denoised.micro_batch,
        guidance_split=denoised.guidance_split,
        stream_buffers=denoised.stream_buffers,
    )
