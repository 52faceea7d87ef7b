"""Out-of-memory errors, with an engine that has them on cue: what is tried, in which order, and what comes out."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchgen.errors import BatchgenError, MemoryNeededError
from batchgen.events import EventLog, read_events
from batchgen.policy import Policy
from batchgen.types import Decoded, Prompt
from batchgen.worker.out_of_memory import Fitting
from tests.builders import POLICY, OnePolicy, fake_image, make_prompt

LARGE = Policy(**{**{name: getattr(POLICY, name) for name in POLICY.__slots__}, "micro_batch": 8, "decode_chunk": 4})
SIZE = (64, 64)
PROMPTS = [make_prompt(f"key{place}", seed=place) for place in range(8)]


class ShortEngine:
    """Refuses memory as `refuses(stage, rows, policy)` says."""

    device_kind, dtype, scheduler_name = "fake", "fp32", "none"
    gauge = None

    def __init__(self, refuses: Any) -> None:
        self._refuses = refuses
        self.beat = lambda: None
        self.calls: list[tuple[str, int]] = []
        self.recovered = 0
        self.policy = LARGE

    def _call(self, stage: str, rows: int, policy: Policy) -> None:
        self.calls.append((stage, rows))
        if self._refuses(stage, rows, policy):
            raise MemoryError(f"{stage} wants more\nand more")

    def prepare(self, policy: Policy) -> tuple[Policy, str | None]:
        self._call("load", 0, policy)
        self.policy = policy
        return policy, None

    def encode(self, prompts: Any) -> Any:
        self._call("encode", len(prompts), self.policy)
        return {prompt.prompt: SimpleNamespace(cut=None) for prompt in prompts}

    def denoise(self, texts: Any, prompts: Any, policy: Policy) -> list[Prompt]:
        assert policy == self.policy
        self._call("denoise", len(prompts), policy)
        return list(prompts)

    def decode(self, latents: Any, policy: Policy) -> list[Decoded]:
        assert policy == self.policy
        self._call("decode", len(latents), policy)
        return [fake_image(prompt) for prompt in latents]

    def warm_up(self, prompts: Any, policy: Policy) -> None:
        raise NotImplementedError

    def crop(self, latent: Any, width_px: int, height_px: int) -> Any:
        raise NotImplementedError

    def passes(self) -> Any:
        raise NotImplementedError

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def recover(self) -> None:
        self.recovered += 1

    def collect(self) -> None:
        raise NotImplementedError


def fit(tmp_path: Path, engine: ShortEngine, strict_rows: int | None = None) -> Fitting:
    return Fitting(engine, OnePolicy(LARGE), EventLog(tmp_path / "events.jsonl"), strict_rows)


def run(fitting: Fitting) -> list[tuple[Decoded, Policy]]:
    fitting.begin(SIZE)
    texts = fitting.encode(SIZE, PROMPTS)
    return fitting.decode(SIZE, fitting.denoise(SIZE, texts, PROMPTS))


def refuse_once(stage: str, times: int = 1) -> Any:
    left = [times]

    def refuses(at: str, _: int, __: Policy) -> bool:
        if at != stage or not left[0]:
            return False
        left[0] -= 1
        return True

    return refuses


@pytest.mark.parametrize("stage", ["load", "encode", "denoise", "decode"])
def test_what_failed_once_is_done_again_as_it_was(tmp_path: Path, stage: str) -> None:
    engine = ShortEngine(refuse_once(stage))
    fitting = fit(tmp_path, engine)
    assert run(fitting) == [(fake_image(prompt), LARGE) for prompt in PROMPTS]
    assert (fitting.ooms, engine.recovered) == (1, 1)


GRAPHS, WHOLE = replace(LARGE, compile="graphs"), replace(LARGE, compile="whole")


def fit_graphs(tmp_path: Path, engine: ShortEngine, strict_rows: int | None = None) -> Fitting:
    return Fitting(engine, OnePolicy(GRAPHS), EventLog(tmp_path / "events.jsonl"), strict_rows)


@pytest.mark.parametrize("most", ["graphs", "whole", "eager"])
def test_where_memory_is_refused_while_it_warms_up_less_is_compiled(tmp_path: Path, most: str) -> None:
    engine, warmed = ShortEngine(lambda *_: False), []

    def compile(width: int, height: int, policy: Policy) -> None:
        warmed.append(policy.compile)
        if policy.compile != most:
            raise MemoryError("no")

    fitting = fit_graphs(tmp_path, engine)
    fitting.warm_up(SIZE, compile)
    assert warmed == ["graphs", "graphs", "whole", "whole"][: {"graphs": 1, "whole": 3, "eager": 4}[most]]
    assert fitting.begin(SIZE) == replace(LARGE, compile=most)


@pytest.mark.parametrize("strict_rows", [None, 8], ids=["best", "strict"])
@pytest.mark.parametrize("rows", [8, 3])
def test_graphs_go_first_and_the_micro_batch_stays(tmp_path: Path, rows: int, strict_rows: int | None) -> None:
    engine = ShortEngine(lambda stage, _, policy: (stage, policy) == ("denoise", GRAPHS))
    fitting = fit_graphs(tmp_path, engine, strict_rows)
    fitting.begin(SIZE)
    made = fitting.denoise(SIZE, fitting.encode(SIZE, PROMPTS[:rows]), PROMPTS[:rows])
    assert [latent.policy for latent in made] == [WHOLE] * rows


def test_a_decode_that_failed_keeps_the_latents(tmp_path: Path) -> None:
    engine = ShortEngine(refuse_once("decode", 2))
    made = run(fit(tmp_path, engine))
    assert [call for call in engine.calls if call[0] == "denoise"] == [("denoise", 8)]
    assert [rows for stage, rows in engine.calls if stage == "decode"] == [4, 4, 2, 2, 2, 2]
    assert {(policy.micro_batch, policy.decode_chunk) for _, policy in made} == {(8, 2)}


def test_rows_that_were_denoised_are_kept_and_each_says_how(tmp_path: Path) -> None:
    refusals = iter([False, False, True, True] + [False] * 20)
    engine = ShortEngine(lambda stage, *_: stage == "denoise" and next(refusals))
    fitting = fit(tmp_path, engine)
    fitting.begin(SIZE)
    texts = fitting.encode(SIZE, PROMPTS)
    first = fitting.denoise(SIZE, texts, PROMPTS[:4]) + fitting.denoise(SIZE, texts, PROMPTS[4:6])
    rest = fitting.denoise(SIZE, texts, PROMPTS)
    assert [one.policy.micro_batch for one in (*first, *rest)] == [8] * 6 + [4] * 8
    images = fitting.decode(SIZE, [*first[:2], *rest[:2]])
    assert [policy.micro_batch for _, policy in images] == [8, 8, 4, 4]


def test_the_smaller_policy_holds_for_the_size_and_for_no_other(tmp_path: Path) -> None:
    engine = ShortEngine(lambda stage, rows, _: stage == "denoise" and rows > 2)
    fitting = fit(tmp_path, engine)
    run(fitting)
    assert fitting.ooms == 4  # 8 twice, 4 twice
    engine.calls.clear()
    run(fitting)
    assert fitting.ooms == 4
    assert [rows for stage, rows in engine.calls if stage == "denoise"] == [2, 2, 2, 2]
    assert fitting.begin(SIZE).micro_batch == 2
    assert fitting.begin((128, 64)).micro_batch == 8


def test_the_smaller_policy_that_succeeded_is_handed_on_and_none_that_failed(tmp_path: Path) -> None:
    chosen = OnePolicy(LARGE)
    engine = ShortEngine(lambda stage, rows, _: stage == "denoise" and rows > 2)
    run(Fitting(engine, chosen, EventLog(tmp_path / "events.jsonl")))
    assert [(*size, policy.micro_batch) for *size, policy in chosen.stepped_down] == [(64, 64, 2)]
    once = OnePolicy(LARGE)
    run(Fitting(ShortEngine(refuse_once("denoise")), once, EventLog(tmp_path / "events.jsonl")))
    assert once.stepped_down == []
    hopeless = OnePolicy(LARGE)
    with pytest.raises(BatchgenError):
        run(Fitting(ShortEngine(lambda stage, *_: stage == "denoise"), hopeless, EventLog(tmp_path / "events.jsonl")))
    assert hopeless.stepped_down == [], "with memory freed it begins with the one that was chosen"


def test_a_model_that_does_not_fit_is_placed_otherwise(tmp_path: Path) -> None:
    engine = ShortEngine(lambda stage, _, policy: stage == "load" and policy.placement == "resident")
    made = run(fit(tmp_path, engine))
    assert {policy.placement for _, policy in made} == {"text_offload"}


def test_only_when_nothing_smaller_is_left_the_worker_gives_up_and_says_what_to_do(tmp_path: Path) -> None:
    fitting = fit(tmp_path, ShortEngine(lambda stage, *_: stage == "denoise"))
    with pytest.raises(BatchgenError, match="64x64 px do not fit .* make smaller images"):
        run(fitting)


def test_other_errors_are_not_held_for_a_lack_of_memory(tmp_path: Path) -> None:
    engine = ShortEngine(lambda *_: False)
    engine.denoise = lambda *_: 1 / 0  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        run(fit(tmp_path, engine))
    assert engine.recovered == 0


def test_each_error_is_an_event(tmp_path: Path) -> None:
    run(fit(tmp_path, ShortEngine(refuse_once("denoise", 2))))
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(events) == 2
    assert all('"event":"out_of_memory"' in line and '"said":"denoise wants more"' in line for line in events)


@pytest.mark.parametrize(("whole_rows", "run_rows"), [(32, 8), (8, 8), (6, 8), (3, 4), (None, 3)])
def test_under_strict_a_rest_runs_among_as_many_rows_as_a_whole_batch_has(
    tmp_path: Path, whole_rows: int | None, run_rows: int
) -> None:
    engine = ShortEngine(lambda *_: False)
    fitting = fit(tmp_path, engine, whole_rows)
    fitting.begin(SIZE)
    latents = fitting.denoise(SIZE, fitting.encode(SIZE, PROMPTS), PROMPTS[:3])
    assert [rows for stage, rows in engine.calls if stage == "denoise"] == [run_rows]
    assert [latent.tensor for latent in latents] == PROMPTS[:3]


@pytest.mark.parametrize("stage", ["load", "denoise", "decode"])
def test_under_strict_what_fails_twice_ends_the_worker_in_one_line(tmp_path: Path, stage: str) -> None:
    once = fit(tmp_path, ShortEngine(refuse_once(stage)), strict_rows=8)
    assert run(once) == [(fake_image(prompt), LARGE) for prompt in PROMPTS]
    with pytest.raises(MemoryNeededError, match="determinism=strict allows no smaller policy: free memory") as caught:
        run(fit(tmp_path, ShortEngine(refuse_once(stage, 2)), strict_rows=8))
    assert len(str(caught.value).splitlines()) == 1


def test_under_strict_a_device_that_cannot_have_the_policy_ends_its_worker(tmp_path: Path) -> None:
    engine = ShortEngine(lambda *_: False)
    engine.prepare = lambda policy: (policy, "flash needs fp16")  # type: ignore[method-assign]
    fit(tmp_path, engine).begin(SIZE)
    with pytest.raises(BatchgenError, match=r"\(flash needs fp16\), and determinism=strict allows no other"):
        fit(tmp_path, engine, strict_rows=8).begin(SIZE)


def test_under_strict_a_device_that_cannot_record_graphs_goes_on_without_them(tmp_path: Path) -> None:
    engine = ShortEngine(lambda *_: False)
    engine.prepare = lambda policy: (policy.without_graphs, "no recording")  # type: ignore[method-assign]
    assert fit_graphs(tmp_path, engine, strict_rows=8).begin(SIZE) == WHOLE


def test_the_log_says_when_the_first_step_of_all_is_done(tmp_path: Path) -> None:
    class Stepping(ShortEngine):
        def denoise(self, texts: Any, prompts: Any, policy: Policy) -> list[Prompt]:
            for _ in range(3):
                self.beat()
            return super().denoise(texts, prompts, policy)

    beats: list[int] = []
    engine, log = Stepping(lambda *_: False), EventLog(tmp_path / "log.jsonl")
    engine.beat = lambda: beats.append(1)
    fitting = Fitting(engine, OnePolicy(LARGE), log)
    fitting.begin(SIZE)
    for _ in range(2):
        fitting.denoise(SIZE, fitting.encode(SIZE, PROMPTS), PROMPTS)
    assert [event["event"] for event in read_events(log.path)] == ["first_step"]
    assert len(beats) == 6
