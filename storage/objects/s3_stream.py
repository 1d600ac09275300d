"""A seekable stream over one S3 object that survives a dropped connection."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from reasoning.errors import Transient

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RESUMES = 5
"""Dropped connections in a row that are taken up again where they broke."""


class S3Stream(io.RawIOBase):
    """Reads the version of the object that was there at the opening, or fails: never a mixture of two."""

    def __init__(self, client: Any, bucket: str, name: str, *, size: int, etag: str) -> None:
        super().__init__()
        self._client = client
        self._target = {"Bucket": bucket, "Key": name, "IfMatch": etag}
        self._size = size
        self._at = 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        at = start + offset
        if at < 0:
            raise OSError(errno.EINVAL, "a position before the start")
        if at != self._at:
            self._drop()
            self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        if self._at >= self._size or not view:
            return 0
        for attempt in range(RESUMES + 1):
            try:
                data = self._connected().read(len(view))
            except (BotoCoreError, HTTPClientError, OSError) as error:
                self._drop()
                if attempt == RESUMES:
                    raise Transient(f"reading {self._target['Key']} broke off at byte {self._at}: {error}") from error
                continue
            if data:
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            self._drop()  # ended before its length: asked for again from here
        raise Transient(f"{self._target['Key']} ends at byte {self._at} of {self._size}; it is tried again")

    def close(self) -> None:
        self._drop()
        super().close()

    def _connected(self) -> Any:
        if self._body is None:
            span = {"Range": f"bytes={self._at}-"} if self._at else {}
            try:
                self._body = self._client.get_object(**self._target, **span)["Body"]
            except ClientError as error:
                raise Transient(f"{self._target['Key']} was replaced or removed while it was read: {error}") from error
        return self._body

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
