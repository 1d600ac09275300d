"""Objects in a bucket of any S3-compatible server, through boto3."""

from __future__ import annotations

import errno
import io
import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from reasoning.errors import BadInput, Transient
from storage.errors import StoreFull
from storage.objects.keys import checked
from storage.objects.protocol import Data, StoredObject, pieces
from storage.objects.s3_stream import S3Stream
from storage.settings import Settings

MAX_PARTS = 10_000
"""Parts of one object at most, by the S3 API."""
MAX_PUT_BYTES = 5 * 2**30
"""Bytes of one put or part at most, by the S3 API."""
MAX_URL_S = 7 * 86400
"""Life of a presigned address at most, by signature version 4."""

ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
THERE = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "StorageFull"})
ADVICE = (
    "Check its name, STAGEBEAM_S3_ENDPOINT_URL, STAGEBEAM_S3_REGION and the access key; "
    "where the key may make no bucket, make it by hand."
)
REFUSED = frozenset(
    {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"}
    | {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)


class S3Store:
    """Keys below a prefix of a bucket. Objects above `s3_multipart_bytes`, and streams, go up part by part.

    One part is held in memory per write; parts grow so that no object needs more than the 10,000 allowed.
    """

    def __init__(self, settings: Settings, *, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self._part_bytes = settings.s3_multipart_bytes
        self._client: Any = _client(settings)
        self._conditional: bool | None = None

    def put(
        self, key: str, data: Data, *, media_type: str = "application/octet-stream", if_absent: bool = False
    ) -> bool:
        if if_absent and self.exists(key):
            return False
        return self.write(key, data, media_type, if_absent=if_absent)

    def write(self, key: str, data: Data, media_type: str, *, if_absent: bool) -> bool:
        """`put` without a look first. True when it was written."""
        name = self._name(key)
        condition = {"IfNoneMatch": "*"} if if_absent and self.conditional_put() else {}
        with _translated(key):
            try:
                self._upload(name, data, media_type, condition)
            except ClientError as error:
                if condition and _code(error) in THERE:
                    return False
                raise
        return True

    def group(self) -> S3Group:
        return S3Group(self)

    def open(self, key: str) -> BinaryIO:
        name = self._name(key)
        with _translated(key):
            head = self._client.head_object(Bucket=self.bucket, Key=name)
        raw = S3Stream(self._client, self.bucket, name, size=head["ContentLength"], etag=head["ETag"])
        return cast("BinaryIO", io.BufferedReader(raw, 256 * 1024))

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        name = self._name(key)
        if end is not None and end <= start:
            self.size(key)
            return b""
        span = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        bounds = {} if start == 0 and end is None else {"Range": span}
        with _translated(key):
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=name, **bounds)
            except ClientError as error:
                if _code(error) in ("416", "InvalidRange"):
                    return b""
                raise
            with answer["Body"] as body:
                return cast("bytes", body.read())

    def size(self, key: str) -> int:
        with _translated(key):
            return int(self._client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        with _translated(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2")
        with _translated(prefix):
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][len(self.prefix) :]
                    yield StoredObject(key, entry["Size"], entry["LastModified"].timestamp())

    def url(self, key: str, expires_s: float, *, filename: str | None = None) -> str | None:
        parameters = {"Bucket": self.bucket, "Key": self._name(key)}
        if filename is not None:
            parameters["ResponseContentDisposition"] = _disposition(filename)
        expires = max(1, min(int(expires_s), MAX_URL_S))
        return str(self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires))

    def check(self) -> dict[str, bool]:
        try:
            return {"conditional_put": self.conditional_put(), "urls": True}
        except (Transient, FileNotFoundError) as error:
            raise BadInput(
                f"the bucket {self.bucket} cannot be used: {error.__cause__}. {ADVICE}",
                code="object_store_refused",
                field="STAGEBEAM_OBJECT_STORE",
            ) from error

    def make_bucket(self) -> bool:
        """Create the bucket; False when it is there already. Raises Transient when the server refuses or is away."""
        try:
            with _translated(self.bucket):
                return self._make_bucket()
        except Transient as error:
            raise Transient(f"the bucket {self.bucket} is missing or not ours: {error.__cause__}. {ADVICE}") from error

    def _make_bucket(self) -> bool:
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if _code(error) not in ABSENT | {"NoSuchBucket"}:
                raise
            self._client.create_bucket(Bucket=self.bucket)
            return True
        return False

    def conditional_put(self) -> bool:
        """Whether the server honours `If-None-Match`, found out once by writing a probe object twice.

        Some servers ignore the header and overwrite in silence, so that only trying tells.
        """
        if self._conditional is None:
            name = f"{self.prefix}probe/{secrets.token_hex(8)}"
            with _translated(name):
                self._client.put_object(Bucket=self.bucket, Key=name, Body=b"probe")
                try:
                    self._client.put_object(Bucket=self.bucket, Key=name, Body=b"again", IfNoneMatch="*")
                    self._conditional = False
                except ClientError as error:
                    if _code(error) not in THERE | {"501", "NotImplemented"}:
                        raise
                    self._conditional = _code(error) in THERE
                finally:
                    self._client.delete_object(Bucket=self.bucket, Key=name)
        return self._conditional

    def _name(self, key: str) -> str:
        return self.prefix + checked(key)

    def _upload(self, name: str, data: Data, media_type: str, condition: dict[str, str]) -> None:
        target = {"Bucket": self.bucket, "Key": name}
        parts = _growing(data, self._part_bytes)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            self._client.put_object(**target, Body=first, ContentType=media_type, **condition)
            return
        upload = self._client.create_multipart_upload(**target, ContentType=media_type)
        target["UploadId"] = upload["UploadId"]
        waiting = [second, first]
        del first, second  # a part is let go as soon as it is sent
        try:
            done = []
            for number in itertools.count(1):
                part = waiting.pop() if waiting else next(parts, b"")
                if not part:
                    break
                sent = self._client.upload_part(**target, PartNumber=number, Body=part)
                # The checksums of the parts are asked for again where the server computed any.
                sums = {name: value for name, value in sent.items() if name.startswith("Checksum") and value}
                sums.pop("ChecksumType", None)
                done.append({"PartNumber": number, "ETag": sent["ETag"], **sums})
                del part
            self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": done}, **condition)
        except BaseException:
            with suppress(ClientError, BotoCoreError):  # the first error is the one that tells
                self._client.abort_multipart_upload(**target)
            raise


class S3Group:
    """S3 keeps every object by itself before it answers."""

    threads = 8

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def put(self, key: str, data: Data, *, media_type: str = "application/octet-stream") -> None:
        # One request and not two: whoever stores a group has asked the database what is there already.
        if self._store.conditional_put():
            self._store.write(key, data, media_type, if_absent=True)
        else:
            self._store.put(key, data, media_type=media_type, if_absent=True)

    def keep(self) -> None:
        return

    def drop(self) -> None:
        return


def _growing(data: Data, size: int) -> Iterator[bytes]:
    """The data in parts of `size` bytes that double every thousand parts, as the end of a stream is not known."""
    source = pieces(data, size)
    for number in itertools.count():
        wanted = min(2 ** (number // 1000), MAX_PUT_BYTES // size)
        part = b"".join(itertools.islice(source, wanted))
        if not part:
            return
        yield part


def _client(settings: Settings) -> Any:
    secret = settings.s3_secret_access_key
    key_id = settings.s3_access_key_id
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region or "us-east-1",
        # Without credentials in the settings boto3 looks where it always does: environment, profile, instance role.
        aws_access_key_id=key_id.get_secret_value() if key_id else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if settings.s3_path_style else "virtual"},
            request_checksum_calculation=settings.s3_checksums,
            response_checksum_validation=settings.s3_checksums,
            retries={"mode": "standard", "total_max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=64,
            tcp_keepalive=True,
        ),
    )


def _disposition(filename: str) -> str:
    message = EmailMessage()
    message.add_header("Content-Disposition", "attachment", filename=filename.replace("\r", "").replace("\n", ""))
    return str(message["Content-Disposition"]).replace("\n", "")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in ABSENT:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", key) from error
        if code in FULL or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 507:
            raise StoreFull(
                f"the object store has no room left for {key} ({code}); work goes on once it has"
            ) from error
        advice = "check the bucket and the access key (has it expired?)" if code in REFUSED else "it is tried again"
        raise Transient(f"the object store refused {key}: {error}; {advice}") from error
    except BotoCoreError as error:
        raise Transient(f"the object store cannot be reached for {key}: {error}; it is tried again") from error
