"""A process of its own answers: what it says, the problem that it names, or its last words where it dies."""

import sys

import pytest

from batchgen.errors import BatchgenError, ModelError
from batchgen.models.aside import ask


def process(act):
    """The command of a process that answers with what the lambda `act` makes of a request."""
    head = "import sys; from batchgen.errors import ModelError; from batchgen.models.aside import answer\n"
    return [sys.executable, "-c", f"{head}{act}\nsys.exit(answer(act))"]


def test_what_libraries_print_does_not_mix_with_the_answer():
    command = process("def act(request):\n    print('noise')\n    return {'twice': 2 * request['n']}")
    assert ask(command, {"n": 21}, "it failed") == {"twice": 42}


def test_a_problem_is_a_model_error_with_its_words():
    command = process("def act(request):\n    raise ModelError('the vae is torn')")
    with pytest.raises(ModelError, match="^the vae is torn$"):
        ask(command, {}, "it failed")


@pytest.mark.parametrize(
    ("act", "words"), [("raise ValueError('odd')", "ValueError: odd"), ("sys.exit(7)", "exit code 7")]
)
def test_one_that_dies_has_its_last_words_told(act, words):
    with pytest.raises(BatchgenError, match=f"^it failed: {words}$"):
        ask(process(f"def act(request):\n    {act}"), {}, "it failed")
