"""Objects by key in a local folder or in S3, behind one protocol."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from reasoning.errors import BadInput
from storage.errors import StoreFull
from storage.objects.local import LocalStore
from storage.objects.protocol import Data, Group, ObjectStore, Readable, StoredObject
from storage.settings import Settings

__all__ = ["Data", "Group", "ObjectStore", "Readable", "StoreFull", "StoredObject", "open_objects"]


def open_objects(settings: Settings) -> ObjectStore:
    """The object store that the settings name. Nothing is contacted; `check()` does that.

    Raises:
        BadInput: the address is neither a folder nor `s3://bucket/prefix`.
    """
    address = settings.effective_object_store
    parts = urlsplit(address)
    if parts.scheme == "s3" and parts.netloc:
        from storage.objects.s3 import S3Store  # boto3 takes a third of a second to import

        return S3Store(settings, bucket=parts.netloc, prefix=parts.path.strip("/"))
    if parts.scheme in ("", "file") and parts.path:
        return LocalStore(Path(parts.path if parts.scheme else address).absolute())
    raise BadInput(
        f"the object store {address!r} is refused: use s3://bucket/prefix or the path of a folder",
        code="invalid_setting",
        field="STAGEBEAM_OBJECT_STORE",
    )
