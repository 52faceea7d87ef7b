"""Sentences for scenes, in varied words."""

import random
from collections.abc import Sequence

from jobs.train_tiny.subjects import SUBJECTS, Subject
from jobs.train_tiny.vocabulary import ARTICLES, COUNTS, OPENINGS, PLURALS, SETTINGS, SIZES, TIME_PHRASES, TIMES

_SETTINGS = tuple(SETTINGS)
_NO_SETTING = 0.15  # of the captions say nothing of where


class Words:
    """Words for one caption; with `full`, none is left out."""

    def __init__(self, rng: random.Random, full: bool) -> None:
        self._rng, self._full = rng, full

    def noun(self, subject: int, count: int, colour: str | None, size: str = "") -> str:
        """Words for a subject, for example 'two small red cars'."""
        rng = self._rng
        name = _name(rng, SUBJECTS[subject])
        words = [rng.choice(SIZES[size])] if size else []
        words += [colour] if colour else []
        if count > 1:
            return " ".join([COUNTS[count - 1], *words, PLURALS.get(name, name + "s")])
        return with_article(name, words)

    def sentence(self, said: str, setting: int, time: int) -> str:
        """The whole caption: an opening, what is said, where and when, in varied order."""
        rng = self._rng
        phrases = SETTINGS[_SETTINGS[setting]]
        where = phrases[0] if rng.random() < 0.5 else rng.choice(phrases)
        when = rng.choice(TIME_PHRASES[TIMES[time]])
        if not self._full and rng.random() < _NO_SETTING:
            where = ""
        if not self._full and time == 0 and rng.random() < 0.5:
            when = ""
        comma = ", " if rng.random() < 0.2 else " "
        parts = [said, where, when]
        if rng.random() < 0.1:
            parts, comma = [where, when, said] if rng.random() < 0.5 else [where, said, when], ", "
        opening = rng.choice(OPENINGS) if parts[0] == said else ""
        return f"{opening} {comma.join(part for part in parts if part)}".strip()


def with_article(name: str, words: Sequence[str] = ()) -> str:
    """The name behind its article and these words, for example 'a small red car'."""
    rest = " ".join([*words, name])
    usual = "an" if rest[0] in "aeiou" else "a"
    article = ARTICLES.get(name, usual)
    return f"{usual if words and article == '' else article} {rest}".strip()


def _name(rng: random.Random, subject: Subject) -> str:
    return subject.name if rng.random() < 0.7 else rng.choice(subject.names)
