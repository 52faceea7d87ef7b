"""The rows of .parquet files, as values that JSON knows. pyarrow is imported only for these files."""

import io
import math
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any

from batchgen.prompts.records import BadRow, DamagedFileError, HeaderReader, Record, check_value, shown

_BATCH_ROWS = 1_000


def parquet_records(file: IO[bytes], header: HeaderReader) -> Iterator[Record]:
    """Yield the rows of a parquet file, with a few thousand in memory at a time. Raises DamagedFileError."""
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

    if file.seek(0, io.SEEK_END) == 0:
        return
    number = 0
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        schema = parquet.schema_arrow
        binary = {column.name for column in schema if _is_binary(column.type)}
        fields = set(header.take_header(schema.names, dict.fromkeys(sorted(binary), "it holds bytes")))
        if fields & binary:
            raise DamagedFileError(f"the column {shown(min(fields & binary))} is binary, not text")
        names = [name for name in schema.names if name not in binary]
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
            for value in _batch_rows(batch, fields):
                number += 1
                yield number, value
        if number != parquet.metadata.num_rows:
            raise DamagedFileError(f"holds {number} rows instead of {parquet.metadata.num_rows}")
    except (pa.ArrowException, ValueError, RecursionError) as error:
        raise DamagedFileError(str(error)) from error


def _is_binary(kind: Any) -> bool:
    """Whether the values of an Arrow type hold bytes, at any depth."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _is_binary(kind.value_type)
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if any(test(kind) for test in tests):
        return True
    return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))


def _batch_rows(batch: Any, fields: Collection[str]) -> Iterator[dict[str, Any] | BadRow]:
    from pyarrow import ArrowException

    others = [name for name in batch.schema.names if name not in fields]
    try:
        rows = _as_text(batch, others).to_pylist()
    except (ArrowException, ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            yield BadRow(f"a value cannot be read: {shown(str(error))}")
            return
        for index in range(batch.num_rows):  # to find the rows that are to blame
            yield from _batch_rows(batch.slice(index, 1), fields)
        return
    for row in rows:
        try:
            check_value(row)
            row.update({name: _plain(row[name]) for name in others})
            yield row
        except BadRow as bad:
            yield bad


def _as_text(batch: Any, names: Sequence[str]) -> Any:
    """Return the batch with the dates and times in these columns as text, because Python's hold no nanoseconds."""
    import pyarrow as pa

    for index, column in enumerate(batch.schema):
        kind = column.type
        if column.name in names and pa.types.is_temporal(kind):
            batch = batch.set_column(index, column.name, batch.column(index).cast(pa.string()))
    return batch


def _plain(value: Any) -> Any:
    """Return the value with everything in it converted to what JSON knows; not-a-number becomes None."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return str(value)
