"""Jobs and outcomes as they go over the socket between parent and worker: pickles, each behind its length."""

import pickle
import struct
from io import BufferedIOBase

_LENGTH = struct.Struct("!I")


def framed(message: object) -> bytes:
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


def unframed(received: bytearray) -> bytes | None:
    """The pickle in what was received so far, once all of it is there."""
    if len(received) < _LENGTH.size:
        return None
    data = bytes(received[_LENGTH.size :])
    return data if len(data) >= _LENGTH.unpack_from(received)[0] else None


def read(stream: BufferedIOBase) -> bytes | None:
    """The next pickle; None when the other end is gone."""
    head = stream.read(_LENGTH.size)
    return stream.read(*_LENGTH.unpack(head)) if len(head) == _LENGTH.size else None


def unpickled(data: bytes) -> object:
    return pickle.loads(data)  # noqa: S301  # from a process of our own
