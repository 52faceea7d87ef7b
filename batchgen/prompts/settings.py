"""How prompt files are read: what the job says of them, and which version of the reader a plan was made by."""

import codecs
from dataclasses import dataclass, field, fields, replace

from batchgen.config.schema import JobConfig
from batchgen.errors import PromptError
from batchgen.prompts.records import doubled, shown
from batchgen.types import Columns

# The version of the reader is counted up when the same file would give other rows than before. It is kept with each
# plan (`plan.records.RunFacts.reads`), so that whatever extends the plan is read as the plan was.
# 1: fields are found by their exact names only, numbers are only what they look like, blank lines are bad rows.
# 2: files as people have them: docs/prompts.md has the rules.
# 3: the column lora is a field.
READS = 3
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What the job says of its prompt files, and the version of the reader."""

    columns: Columns = field(default_factory=Columns)
    encoding: str = "utf-8-sig"
    separator: str | None = None  # of tables: a name in SEPARATORS, or the character; None: find it
    comment: str | None = None  # what the lines to skip begin with
    version: int = READS

    @staticmethod
    def of(job: JobConfig, version: int = READS) -> "Reading":
        """How the job's prompt files are read by that version of the reader."""
        columns = job.columns if version >= 3 else replace(job.columns, lora=None)
        return Reading(columns, job.encoding, job.separator, job.comment, version)

    @property
    def lenient(self) -> bool:
        """Whether files are read as people have them, and not only as batchgen would write them."""
        return self.version >= 2

    @property
    def delimiter(self) -> str | None:
        """The character that `separator` stands for."""
        return None if self.separator is None else SEPARATORS.get(self.separator, self.separator)

    def check(self) -> None:
        """Raise PromptError where a setting cannot be used with any file."""
        try:
            codecs.lookup(self.encoding)
            "a".encode(self.encoding)  # only use shows that a codec is not for text
        except (LookupError, ValueError):
            raise PromptError(f"job.encoding: {shown(self.encoding)} is not a known text encoding") from None
        named = [getattr(self.columns, column.name) for column in fields(self.columns)]
        twice = doubled([name for name in named if name is not None])
        if twice is not None:
            raise PromptError(f"job.columns: {shown(twice)} is set for more than one field")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            names = ", ".join(SEPARATORS)
            raise PromptError(f"job.separator: {shown(self.separator)} is neither one character nor one of {names}")
        if self.comment is not None and not self.comment.strip():
            raise PromptError("job.comment: name what the lines to skip begin with, such as '#', or null for none")
