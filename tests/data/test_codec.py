"""The codec writes the same bytes as zarr."""

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from tendril.data.store.codec import (
    ChunkError,
    decode_chunk,
    encode_chunk,
    shard_pieces,
    split_index,
)
from tendril.data.store.create import writing
from tendril.data.store.dtypes import STORED_AS
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.data.store.writer import Written

COMPRESSORS = ("zstd", "lz4", "none")


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("elements", [0, 3])
def test_zarr_writes_the_same_files(tmp_path, compressor: str, dtype: str, elements: int) -> None:  # type: ignore[no-untyped-def]
    planned = plan_layout(8, 5, {"a": 12}, elements=elements, compressor=compressor)
    layout = Layout(**(vars(planned) | {"inputs_per_chunk": 2, "inputs_per_shard": 4}))
    spec = StoreSpec({"name": "s"}, {"kind": "i"}, ("a",), {"rule": "all"}, 0, dtype)
    random = np.random.default_rng(0)
    rows = random.integers(0, 3, (40, *layout.row_shape("a"))).astype(STORED_AS[dtype])
    path = tmp_path / "store"
    with writing(path, spec, layout, origin={}, environment={}) as writer:
        for shard in (1, 0):
            at = layout.row_range(layout.shard_inputs(shard))
            columns = {"input": np.arange(at.start, at.stop, dtype=np.int32) // 5}
            columns |= {"y": columns["input"], "x": columns["input"]}
            columns["valid"] = np.ones(20, bool)
            scales = {"a": np.ones(20, np.float32)} if dtype == "int8" else {}
            writer.write_shard(shard, Written({"a": rows[at]}, columns, ["n"] * 4, {}, scales))
        writer.finish()
    assert np.array_equal(zarr.open(path, mode="r")["activations/a"][:], rows)
    for name in ("activations/a", "input", "valid", "norms/a"):
        ours = zarr.open(path, mode="r")[name]
        kept = MemoryStore()
        theirs = zarr.create_array(kept, **_arguments(path / name))
        theirs[:] = ours[:]
        files = {k: v.to_bytes() for k, v in kept._store_dict.items() if k != "zarr.json"}
        assert sorted(files) == sorted(
            p.relative_to(path / name).as_posix()
            for p in (path / name).rglob("*")
            if p.is_file() and p.name != "zarr.json"
        )
        for key, content in files.items():
            assert (path / name / key).read_bytes() == content, f"{name}/{key}"


def _arguments(path) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """The arguments that create an empty array like the one at a path."""
    array = zarr.open_array(path, mode="r")
    return {
        "shape": array.shape,
        "dtype": array.dtype,
        "chunks": array.chunks,
        "shards": array.shards,
        "fill_value": array.fill_value,
        "compressors": array.compressors,
        "config": {"write_empty_chunks": True},
    }


def as_bytes(content: bytes | bytearray) -> np.ndarray:
    """Bytes as the array that the reader decodes."""
    return np.frombuffer(bytes(content), np.uint8)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_chunks_come_back_and_no_flipped_bit_does(compressor: str) -> None:
    chunk = np.random.default_rng(1).integers(0, 5, (7, 3)).astype(np.float16)
    content, out = encode_chunk(chunk, compressor), np.empty_like(chunk)
    decode_chunk(as_bytes(content), compressor, out)
    assert np.array_equal(out, chunk)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 4
        with pytest.raises(ChunkError):
            decode_chunk(as_bytes(flipped), compressor, out)


def test_a_chunk_of_another_length_is_refused() -> None:
    with pytest.raises(ChunkError, match="must have 16 bytes; got 8"):
        content = as_bytes(encode_chunk(np.zeros(4, np.float16), "none"))
        decode_chunk(content, "none", np.empty(8, "f2"))


def test_an_index_says_where_chunks_lie() -> None:
    shard = b"".join(shard_pieces([[b"abc"], [b"defgh"]], places=3))
    index = split_index(shard[8:])
    assert index[:2].tolist() == [[0, 3], [3, 5]]
    assert (index[2] == 2**64 - 1).all()
    with pytest.raises(ChunkError, match="checksum"):
        split_index(shard[8:-1] + b"?")
