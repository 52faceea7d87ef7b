"""Which kind of place an address of `output.copy_to` names."""

from batchgen.stores.bucket import Bucket
from batchgen.stores.hub import PREFIX, Hub


def target(address: str) -> Bucket | Hub:
    """The place that copies go to. Raises ConfigError where the address is not valid, or its package is missing."""
    return Hub(address) if address.startswith(PREFIX) else Bucket(address)
