"""Named arrays and a JSON header as bytes, and back, in any number of threads.

`np.load` is not used: it parses headers with `ast.literal_eval`, which fails at random in threads on CPython
3.11.0 to 3.11.7 ("AST constructor recursion depth mismatch", CPython gh-106905).
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vilasr_jax.errors import DataError

ARRAYS = "arrays"  # the header's key for the arrays' types and shapes
_NPZ = b"PK"  # how a NumPy archive begins
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)


def pack_arrays(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Compressed: the JSON's length (4 bytes), the JSON, then the arrays' bytes one after another."""
    kinds = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    text = json.dumps({**header, ARRAYS: kinds}).encode()
    return zlib.compress(
        b"".join([len(text).to_bytes(4, "little"), text, *(a.tobytes() for a in arrays.values())])
    )


def unpack_arrays(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `pack_arrays` wrote, or a NumPy archive with the JSON as array "header" (earlier versions).

    Raises:
      DataError: the bytes are neither.
    """
    try:
        return _unpack_npz(data) if data[:2] == _NPZ else _unpack(zlib.decompress(data))
    except (zlib.error, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{len(data)} bytes aren't a stored conversation ({error})") from None


def _unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    at = 4 + int.from_bytes(data[:4], "little")
    header, arrays = json.loads(data[4:at]), {}
    for name, (kind, shape) in header.pop(ARRAYS).items():
        arrays[name] = _array(data, kind, tuple(shape), at)
        at += arrays[name].nbytes
    return header, arrays


def _unpack_npz(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            match = _NPY.match(content)
            if match is None:
                raise ValueError(f"{name} has an unknown header")
            shape = tuple(int(side) for side in match[2].split(b",") if side.strip())
            arrays[name.removesuffix(".npy")] = _array(content, match[1].decode(), shape, match.end())
    return json.loads(arrays.pop("header").tobytes()), arrays


def _array(data: bytes, kind: str, shape: tuple[int, ...], at: int) -> np.ndarray:
    """An array of its own memory, which may be written to."""
    return np.frombuffer(data, kind, int(np.prod(shape)), at).reshape(shape).copy()
