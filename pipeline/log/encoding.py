"""How a frame looks in a segment file: a header of 64 bytes, what its records share, the records.

    offset  size  field
         0     4  magic "CLfr"
         4     1  version, 1
         5     1  kind, 1 (records)
         6     2  zero
         8     4  bytes of meta
        12     4  bytes of payload
        16     4  records in the payload
        20     4  CRC-32 of meta
        24     8  position: the frame's number in its log, from 0
        32     8  records in the log before this frame
        40     8  arrival, microseconds since 1970
        48     8  id of the first record
        56     4  CRC-32 of the payload
        60     4  CRC-32 of the 60 bytes before

All numbers are little-endian.  Meta is a MessagePack array; the payload is what
`pipeline.record.encode_records` made; a frame is padded with zeros to a multiple of 8 bytes.
Pure functions.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from pipeline.log.frame import Frame, Share

MAGIC = b"CLfr"
VERSION = 1
RECORDS = 1
ALIGNMENT = 8

_HEADER = struct.Struct("<4sBBHIIIIQQqQI")
HEADER_BYTES = _HEADER.size + 4
assert HEADER_BYTES == 64
_CRC = struct.Struct("<I")

# Beyond what a request may bring, so that a header that was flipped does not ask for gigabytes.
MAX_FRAME_BYTES = 1 << 30


class ShareMeta(msgspec.Struct, array_like=True, gc=False):
    """A share as the log keeps it."""

    sink: str
    count: int
    nbytes: int
    min_severity: int
    required: bool


class Meta(msgspec.Struct, array_like=True, gc=False):
    """What the records of a frame have in common."""

    type: str
    tenant: str
    request_id: str
    traceparent: str
    key: str
    shares: tuple[ShareMeta, ...]


class Header(msgspec.Struct, gc=False, frozen=True):
    """The fixed part of a frame."""

    meta_bytes: int
    payload_bytes: int
    count: int
    position: int
    records_before: int
    received_us: int
    id_base: int
    meta_crc: int
    payload_crc: int

    @property
    def length(self) -> int:
        """Bytes from this frame's first to the next frame's first."""
        return padded(HEADER_BYTES + self.meta_bytes + self.payload_bytes)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Meta)


def padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def encode_meta(frame: Frame) -> bytes:
    shares = tuple(
        ShareMeta(share.sink, share.count, share.nbytes, share.min_severity, share.required)
        for share in frame.shares
    )
    return _encoder.encode(
        Meta(frame.type, frame.tenant, frame.request_id, frame.traceparent, frame.key, shares)
    )


def decode_meta(data: bytes, header: Header) -> Meta | None:
    """The meta that follows a header; None where it is not what was written."""
    if len(data) != header.meta_bytes or zlib.crc32(data) != header.meta_crc:
        return None
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return None


def encode_header(
    frame: Frame, *, meta_bytes: int, meta_crc: int, payload_crc: int, records_before: int
) -> bytes:
    packed = _HEADER.pack(
        MAGIC,
        VERSION,
        RECORDS,
        0,
        meta_bytes,
        len(frame.payload),
        frame.count,
        meta_crc,
        frame.position,
        records_before,
        frame.received_us,
        frame.id_base,
        payload_crc,
    )
    return packed + _CRC.pack(zlib.crc32(packed))


def decode_header(data: bytes | memoryview, offset: int = 0) -> Header | None:
    """The header at `offset`; None where there is none that can be believed."""
    end = offset + HEADER_BYTES
    if len(data) < end:
        return None
    (magic, version, kind, _, meta_bytes, payload_bytes, count, meta_crc, position, before,
     received, id_base, payload_crc) = _HEADER.unpack_from(data, offset)  # fmt: skip
    if magic != MAGIC or version != VERSION or kind != RECORDS:
        return None
    if _CRC.unpack_from(data, end - 4)[0] != zlib.crc32(data[offset : end - 4]):
        return None
    if meta_bytes + payload_bytes > MAX_FRAME_BYTES:
        return None
    return Header(
        meta_bytes,
        payload_bytes,
        count,
        position,
        before,
        received,
        id_base,
        meta_crc,
        payload_crc,
    )


def shares_of(meta: Meta) -> tuple[Share, ...]:
    """The shares anew, with nothing of them settled."""
    return tuple(
        Share(
            sink=share.sink,
            count=share.count,
            nbytes=share.nbytes,
            min_severity=share.min_severity,
            required=share.required,
        )
        for share in meta.shares
    )
