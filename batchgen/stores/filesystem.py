"""Addresses such as s3://BUCKET/FOLDER, and the file systems behind them. fsspec is imported late.

Passwords and keys never stand in an address or in a run: each backend reads them from its own environment variables
and files, such as AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS and HF_TOKEN.
"""

import re
from typing import Any

from batchgen.errors import ConfigError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://).+", re.DOTALL)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # what pip installs as batchgen[...]


def is_address(text: str) -> bool:
    """Whether a text is an address such as s3://BUCKET/FOLDER, and not a path of this machine."""
    return _ADDRESS.fullmatch(text) is not None and not text.startswith("file://")


def filesystem(name: str, address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it. `name` is the key that holds the address.

    Raises ConfigError where fsspec does not know the protocol, or the package that it needs is not installed.
    """
    import fsspec

    protocol = address.partition("://")[0].partition("::")[0]
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        package = f"pip install 'batchgen[{extra}]'" if extra else str(error)
        raise ConfigError(f"{name}={address} needs a package that is not installed: {package}") from error
    except ValueError as error:
        raise ConfigError(f"{name}={address} is not an address that fsspec knows: {error}") from error
    return system, str(path)
