"""Parquet files, and folders that Hugging Face `datasets` wrote or a snapshot of its hub holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from orchestrator.datasets.spec import Row
from reasoning.errors import BadInput, nearest

BATCH_ROWS = 16
"""Rows turned into Python values at a time; with images a row may take megabytes."""
SPLITS = ("test", "validation", "train")
"""Which split is read when none is named and there are several."""


def parquet_columns(source: Path | BinaryIO) -> list[str]:
    """The column names."""
    return list(_parquet(source).schema_arrow.names)


def read_parquet(source: Path | BinaryIO) -> Iterator[Row]:
    """The rows, one row group in memory at a time. Raises BadInput on a file that is no parquet."""
    file = _parquet(source)
    for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
        yield from batch.to_pylist()


def _parquet(source: Path | BinaryIO) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(source, pre_buffer=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"the parquet file cannot be read: {error}.", code="invalid_table") from error


def read_arrow(paths: Sequence[Path]) -> Iterator[Row]:
    """The rows of Arrow files as `save_to_disk` writes them."""
    import pyarrow as pa

    for path in paths:
        with pa.memory_map(str(path)) as mapped, _opened(mapped, path) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield from batch.slice(start, BATCH_ROWS).to_pylist()


def arrow_columns(path: Path) -> list[str]:
    """The column names of an Arrow file."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as mapped, _opened(mapped, path) as reader:
        return list(reader.schema.names)


def _opened(mapped: Any, path: Path) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(mapped)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path.name} cannot be read as Arrow: {error}.", code="invalid_table") from error


def saved_files(folder: Path, split: str | None) -> tuple[str | None, list[Path]] | None:
    """Split and Arrow files of a folder that `save_to_disk` wrote; None when it is no such folder."""
    several = folder / "dataset_dict.json"
    if several.is_file():
        names = orjson.loads(several.read_bytes())["splits"]
        chosen = choose_split(names, split)
        found = saved_files(folder / chosen, None)
        return (chosen, found[1]) if found else None
    state = folder / "state.json"
    if not state.is_file():
        return None
    files = [folder / Path(entry["filename"]).name for entry in orjson.loads(state.read_bytes())["_data_files"]]
    return split, files


def parquet_files(folder: Path, split: str | None) -> tuple[str | None, list[Path]] | None:
    """Split and parquet files below a folder, as a snapshot of the hub lays them out; None when there are none."""
    by_split: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        by_split.setdefault(_split_of(path, folder), []).append(path)
    if not by_split:
        return None
    chosen = choose_split(list(by_split), split)
    return chosen, by_split[chosen]


def _split_of(path: Path, folder: Path) -> str:
    """`data/train-00000-of-00004.parquet` and `train/0000.parquet` are both `train`."""
    stem = re.sub(r"-\d+-of-\d+.*$", "", path.stem)
    parent = path.parent.name if path.parent != folder else ""
    return parent if stem.isdigit() and parent else stem


def choose_split(names: Sequence[str], wanted: str | None) -> str:
    """The split to read. Raises BadInput when it is not there or cannot be told."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise BadInput(
            f'there is no split "{wanted}".{nearest(wanted, names)} Splits: {", ".join(names)}.',
            code="unknown_split",
            field="split",
        )
    if len(names) == 1:
        return names[0]
    for name in SPLITS:
        if name in names:
            return name
    raise BadInput(f"choose a split (--split): {', '.join(names)}.", code="unknown_split", field="split")
