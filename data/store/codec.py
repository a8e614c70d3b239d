"""Encode and decode chunks (compression and crc32c) and the shard files that hold them.

The bytes are those of zarr's codecs `zstd`, `blosc`, `crc32c` and `sharding_indexed`, as a test
checks. Calling the codecs directly is faster: zarr's own pipeline takes longer than the work.
"""

import struct
from collections.abc import Sequence
from functools import cache

import numcodecs
import numpy as np
from crc32c import crc32c
from jaxtyping import Shaped, UInt8, UInt64
from numcodecs.abc import Codec

CRC_BYTES = 4
ABSENT = 2**64 - 1  # the offset and length of a chunk that is absent from its shard
EMPTY_CRC = 0  # the crc32c of zero bytes
ZSTD_LEVEL = 1
LZ4_LEVEL = 5


Pieces = Sequence[bytes | memoryview]  # consecutive parts of one content; joining would copy


class ChunkError(ValueError):
    """A chunk has a wrong checksum or a wrong length."""


@cache
def _codec(compressor: str) -> Codec:
    if compressor == "zstd":
        return numcodecs.Zstd(level=ZSTD_LEVEL)
    assert compressor == "lz4", compressor
    return numcodecs.Blosc(cname="lz4", clevel=LZ4_LEVEL, shuffle=0)


def chunk_pieces(chunk: Shaped[np.ndarray, "..."], compressor: str) -> Pieces:
    """A compressed chunk and its crc32c (little-endian).

    Without compression the first piece is the chunk's own memory, which is not copied.
    """
    raw = np.ascontiguousarray(chunk)
    packed = raw.reshape(-1).view(np.uint8)
    if compressor != "none":
        packed = np.frombuffer(_codec(compressor).encode(raw), np.uint8)
    return [packed.data, _checksum(packed)]


def encode_chunk(chunk: Shaped[np.ndarray, "..."], compressor: str) -> bytes:
    """`chunk_pieces`, joined into one byte string."""
    return b"".join(chunk_pieces(chunk, compressor))


def decode_chunk(
    content: UInt8[np.ndarray, " n"], compressor: str, out: Shaped[np.ndarray, "..."]
) -> None:
    """Decode a chunk into `out`. Raises ChunkError."""
    packed, stored_crc = content[:-CRC_BYTES], content[-CRC_BYTES:]
    check_crc(extend_crc(EMPTY_CRC, packed), stored_crc)
    length = _length(packed, compressor)
    if length is None:  # another program's zstd may not say
        packed = np.frombuffer(_codec(compressor).decode(packed), np.uint8)
        length, compressor = len(packed), "none"
    if length != out.nbytes:
        raise ChunkError(f"a chunk must have {out.nbytes} bytes; got {length}.")
    if compressor == "none":
        out[...] = packed.view(out.dtype).reshape(out.shape)
    else:
        _codec(compressor).decode(packed, out)


def _length(packed: UInt8[np.ndarray, " n"], compressor: str) -> int | None:
    """The number of bytes that a chunk unpacks to, from its header; None if it does not say.

    A codec that is given too large a buffer leaves its end as it was. The headers are those of a
    zstd frame (RFC 8878, 3.1.1.1) and of blosc.
    """
    if compressor == "none":
        return len(packed)
    head = packed[:18].tobytes()
    if len(head) < (16 if compressor == "lz4" else 5):
        raise ChunkError("a chunk is shorter than its header")
    if compressor == "lz4":
        return int.from_bytes(head[4:8], "little")
    flags = head[4]
    single, kind = flags >> 5 & 1, flags >> 6
    size = (single, 2, 4, 8)[kind]
    start = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    return (
        int.from_bytes(head[start : start + size], "little") + 256 * (kind == 1) if size else None
    )


def extend_crc(crc: int, piece: UInt8[np.ndarray, " n"]) -> int:
    """The crc32c of a content and a piece after it, given the `crc` of the content."""
    return crc32c(piece.data, crc)  # releases the GIL, which zarr's crc32c package does not


def check_crc(crc: int, stored: UInt8[np.ndarray, " c"]) -> None:
    """Raise ChunkError if a crc32c differs from the stored one (4 bytes, little-endian)."""
    if struct.pack("<I", crc) != stored.tobytes():
        raise ChunkError("the checksum is wrong")


def check_listed(stored: UInt8[np.ndarray, " c"], listed: str) -> None:
    """Raise ChunkError if a chunk has another checksum than is on record, as a swapped file has."""
    if listed and stored.tobytes().hex() != listed:
        raise ChunkError("the checksum is another one than on record")


def shard_pieces(chunks: Sequence[Pieces], places: int) -> Pieces:
    """The content of a shard file with room for `places` chunks.

    The chunks come first, one after the other, then the index (offset and length of each place,
    uint64, little-endian), then the crc32c of the index.
    """
    index = np.full((places, 2), ABSENT, "<u8")
    lengths = np.array([sum(len(piece) for piece in chunk) for chunk in chunks], "<u8")
    index[: len(chunks), 1] = lengths
    index[: len(chunks), 0] = np.cumsum(lengths) - lengths
    tail = index.reshape(-1).view(np.uint8)
    return [*(piece for chunk in chunks for piece in chunk), tail.data, _checksum(tail)]


def index_bytes(places: int) -> int:
    """The length of the index at the end of a shard file with `places` chunks."""
    return 16 * places + CRC_BYTES


def split_index(tail: bytes) -> UInt64[np.ndarray, "places 2"]:
    """The offset and length of each chunk, from the end of a shard file. Raises ChunkError."""
    whole = np.frombuffer(tail, np.uint8)
    check_crc(extend_crc(EMPTY_CRC, whole[:-CRC_BYTES]), whole[-CRC_BYTES:])
    return whole[:-CRC_BYTES].view("<u8").reshape(-1, 2)


def _checksum(content: UInt8[np.ndarray, " n"]) -> bytes:
    return struct.pack("<I", crc32c(content.data))
