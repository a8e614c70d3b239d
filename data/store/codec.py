"""Chunks as bytes: compressed, closed by a crc32c, and several of them in a shard file.

These are zarr's own codecs `zstd`, `blosc`, `crc32c` and `sharding_indexed`, applied to whole
chunks without zarr's machinery in between, which takes longer than the work; a test holds that
zarr writes the same bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import cache

import numcodecs
import numpy as np
from crc32c import crc32c
from jaxtyping import Shaped, UInt8, UInt64
from numcodecs.abc import Codec

CRC_BYTES = 4
ABSENT = 2**64 - 1  # offset and length of a chunk that a shard does not hold
NOTHING = 0  # the crc32c of no bytes
ZSTD_LEVEL = 1
LZ4_LEVEL = 5


Pieces = Sequence[bytes | memoryview]  # of one content, in order; joining them takes a copy


class ChunkError(ValueError):
    """A chunk's checksum is wrong, or it is not as long as it should be."""


@cache
def _codec(compressor: str) -> Codec:
    if compressor == "zstd":
        return numcodecs.Zstd(level=ZSTD_LEVEL)
    assert compressor == "lz4", compressor
    return numcodecs.Blosc(cname="lz4", clevel=LZ4_LEVEL, shuffle=0)


def chunk_pieces(chunk: Shaped[np.ndarray, "..."], compressor: str) -> Pieces:
    """A chunk compressed, and its crc32c (little-endian) after it; where nothing is compressed
    the chunk's own memory, not a copy."""
    raw = np.ascontiguousarray(chunk)
    packed = raw.reshape(-1).view(np.uint8)
    if compressor != "none":
        packed = np.frombuffer(_codec(compressor).encode(raw), np.uint8)
    return [packed.data, _checksum(packed)]


def encode_chunk(chunk: Shaped[np.ndarray, "..."], compressor: str) -> bytes:
    """`chunk_pieces`, joined."""
    return b"".join(chunk_pieces(chunk, compressor))


def decode_chunk(
    content: UInt8[np.ndarray, " n"], compressor: str, out: Shaped[np.ndarray, "..."]
) -> None:
    """Fill `out` with a chunk. Raises ChunkError."""
    packed, closing = content[:-CRC_BYTES], content[-CRC_BYTES:]
    check_sum(packed, closing)
    if compressor != "none":
        _codec(compressor).decode(packed, out)
    elif len(packed) == out.nbytes:
        out[...] = packed.view(out.dtype).reshape(out.shape)
    else:
        raise ChunkError(f"{len(packed)} bytes where {out.nbytes} should be")


def check_sum(packed: UInt8[np.ndarray, " n"], closing: UInt8[np.ndarray, " c"]) -> None:
    """Raises ChunkError where the crc32c of `packed` is not `closing`."""
    if _checksum(packed) != closing.tobytes():
        raise ChunkError("the checksum is wrong")


def extended(found: int, piece: UInt8[np.ndarray, " n"]) -> int:
    """The crc32c of what `found` is that of, and a piece after it."""
    return crc32c(piece.data, found)  # lets go of the interpreter, as zarr's own package does not


def check_found(found: int, closing: UInt8[np.ndarray, " c"]) -> None:
    """Raises ChunkError where a crc32c is not the one that closes a chunk."""
    if struct.pack("<I", found) != closing.tobytes():
        raise ChunkError("the checksum is wrong")


def shard_pieces(chunks: Sequence[Pieces], places: int) -> Pieces:
    """A shard file of `places` chunks: those there are, one after the other, then the index
    (offset and length of each, uint64, little-endian) and its crc32c."""
    index = np.full((places, 2), ABSENT, "<u8")
    lengths = np.array([sum(len(piece) for piece in chunk) for chunk in chunks], "<u8")
    index[: len(chunks), 1] = lengths
    index[: len(chunks), 0] = np.cumsum(lengths) - lengths
    tail = index.reshape(-1).view(np.uint8)
    return [*(piece for chunk in chunks for piece in chunk), tail.data, _checksum(tail)]


def join_shard(chunks: Iterable[bytes], places: int) -> bytes:
    """`shard_pieces`, joined."""
    return b"".join(shard_pieces([[chunk] for chunk in chunks], places))


def index_bytes(places: int) -> int:
    """How long the index at the end of a shard file of `places` chunks is."""
    return 16 * places + CRC_BYTES


def split_index(tail: bytes) -> UInt64[np.ndarray, "places 2"]:
    """Offset and length of each chunk, from the end of a shard file. Raises ChunkError."""
    whole = np.frombuffer(tail, np.uint8)
    check_sum(whole[:-CRC_BYTES], whole[-CRC_BYTES:])
    return whole[:-CRC_BYTES].view("<u8").reshape(-1, 2)


def _checksum(content: UInt8[np.ndarray, " n"]) -> bytes:
    return struct.pack("<I", crc32c(content.data))
