"""Names of objects, and the check that a name stays inside its store."""

from __future__ import annotations

import re

from reasoning.errors import BadInput

MAX_KEY_BYTES = 900
"""Below the 1024 of S3, so that a bucket prefix fits before it."""
MAX_PART_BYTES = 250
"""Below the 255 of common file systems."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}/)*[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}")
"""What nearly all keys are like, and needs no closer look when it is short enough."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def blob(sha256: str) -> str:
    """Key of an image by its content hash; the first two digits spread the files of a local store over folders.

    Raises:
        BadInput: not a hexadecimal SHA-256.
    """
    return f"blobs/{_spread(sha256)}"


def bundle(name: str) -> str:
    """Key of images that are stored together, by the SHA-256 of their hashes.

    Raises:
        BadInput: not a hexadecimal SHA-256.
    """
    return f"bundles/{_spread(name)}"


def _spread(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise BadInput(f"{sha256[:80]!r} is no hexadecimal SHA-256", code="invalid_key")
    return f"{sha256[:2]}/{sha256}"


def upload(file_id: str) -> str:
    """Key of an uploaded file."""
    return checked(f"files/{file_id}")


def job_prefix(job_id: str) -> str:
    """What the keys of everything that a job wrote begin with."""
    return checked(f"jobs/{job_id}") + "/"


def job_file(job_id: str, name: str) -> str:
    """Key of something that a job wrote: `output.jsonl`, `error.jsonl`, `traces/part-000000.jsonl.zst`; or a prefix."""
    key = job_prefix(job_id) + name
    return checked(key.removesuffix("/")) + key[len(key.removesuffix("/")) :]


def checked(key: str) -> str:
    """The key itself when it is safe in a folder and in a bucket.

    Raises:
        BadInput: empty, too long, absolute, with `.`, `..` or empty parts, a backslash or control characters.
    """
    if len(key) <= MAX_KEY_BYTES and _PLAIN.fullmatch(key):
        return key
    parts = key.split("/")
    why = None
    if len(key.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        why = f"is longer than {MAX_KEY_BYTES} bytes"
    elif any(part in ("", ".", "..") for part in parts):
        why = "has an empty, `.` or `..` part"
    elif any(len(part.encode(errors="surrogatepass")) > MAX_PART_BYTES for part in parts):
        why = f"has a part longer than {MAX_PART_BYTES} bytes"
    elif "\\" in key or _CONTROL.search(key) or not key.isprintable():
        why = "has a backslash, a control character or half a character"
    if why:
        raise BadInput(f"object key {key[:80]!r} {why}; use plain names with single slashes", code="invalid_key")
    return key
