"""Which kind of place an address names."""

from batchgen.stores.bucket import Bucket
from batchgen.stores.hub import Hub
from batchgen.stores.target import target


def test_data_sets_and_all_else() -> None:
    assert isinstance(target("hf://datasets/me/night"), Hub)
    assert isinstance(target("memory://night"), Bucket)
