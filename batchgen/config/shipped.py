"""What comes with the package beside its code: the configuration in conf/, and the prompt files in jobs/."""

from pathlib import Path


def conf_dir() -> Path:
    """Where conf/ is: inside the package when installed, beside it in a checkout."""
    return _shipped("conf")


def jobs_dir() -> Path:
    """Where the shipped prompt files are: inside the package when installed, beside it in a checkout."""
    return _shipped("jobs")


def options_of(group: str) -> list[str]:
    """The options of a group that come with batchgen, such as sd15 of model."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
