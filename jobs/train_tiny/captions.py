"""Sentences for scenes, in varied words."""

import random

from jobs.train_tiny.subjects import SUBJECTS, Subject
from jobs.train_tiny.vocabulary import ARTICLES, COUNTS, OPENINGS, PLURALS, SETTINGS, SIZES, TIME_PHRASES, TIMES

_SETTINGS = tuple(SETTINGS)


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
        rest = " ".join([*words, name])
        article = ARTICLES.get(name, "an" if rest[0] in "aeiou" else "a")
        if words and article == "":
            article = "an" if rest[0] in "aeiou" else "a"
        return f"{article} {rest}".strip()

    def sentence(self, said: str, setting: int, time: int) -> str:
        """The whole caption: an opening, what is said, where and when, in varied order."""
        rng = self._rng
        phrases = SETTINGS[_SETTINGS[setting]]
        where = phrases[0] if rng.random() < 0.5 else rng.choice(phrases)
        when = rng.choice(TIME_PHRASES[TIMES[time]])
        if not self._full and rng.random() < 0.08:
            where = ""
        if not self._full and time == 0 and rng.random() < 0.5:
            when = ""
        comma = ", " if rng.random() < 0.2 else " "
        parts = [said, where, when]
        if rng.random() < 0.1:
            parts, comma = [where, when, said] if rng.random() < 0.5 else [where, said, when], ", "
        opening = rng.choice(OPENINGS) if parts[0] == said else ""
        return f"{opening} {comma.join(part for part in parts if part)}".strip()


def _name(rng: random.Random, subject: Subject) -> str:
    return subject.name if rng.random() < 0.7 else rng.choice(subject.names)
