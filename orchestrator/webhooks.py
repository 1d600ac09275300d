"""What a webhook message is and how it is sent: the standard signature, and never into a private network unasked.

Signature: openai-batch-wire.md section 9.13. The six lines of it are written here because the published library
brings five packages along for them; the tests verify every message with the OpenAI client's own verifier.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import urllib.parse
from collections.abc import Callable
from typing import Self

import httpx

from orchestrator.intake.fetch import Resolve, is_public, resolve_host
from reasoning.errors import BadInput

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
TIMEOUT_S = 10.0


def signed_headers(event_id: str, timestamp: int, body: bytes, secret: str | None) -> dict[str, str]:
    """The headers of a message. Without a secret it is not signed.

    Raises:
        BadInput: the secret is not `whsec_` and base64.
    """
    headers = {"content-type": "application/json", "webhook-id": event_id, "webhook-timestamp": str(timestamp)}
    if secret:
        digest = hmac.new(_key(secret), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _key(secret: str) -> bytes:
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise BadInput(
            f"a webhook secret is written {SECRET_PREFIX} and base64", code="invalid_webhook_secret", field="webhook"
        ) from None


def allowed_addresses(*, private: bool, loopback: bool) -> Callable[[str], bool]:
    """Which addresses a message may go to. `loopback` is whether our own server is on loopback."""

    def allowed(address: str) -> bool:
        return private or is_public(address) or (loopback and ipaddress.ip_address(address).is_loopback)

    return allowed


class Sender:
    """Posts messages. A name is resolved once and the connection goes to the address that was checked."""

    def __init__(self, allowed: Callable[[str], bool], resolve: Resolve = resolve_host) -> None:
        self._allowed = allowed
        self._resolve = resolve
        # No proxy settings of the environment: a proxy would resolve the name by itself.
        self._http = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """The HTTP status of the answer.

        Raises:
            BadInput: the address is refused (`webhook_refused`).
            OSError, httpx.HTTPError: no answer.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise BadInput("a webhook address must be plain http or https without a user name", code="webhook_refused")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._checked(parts.hostname, port)
        host = f"[{address}]" if ":" in address else address
        target = urllib.parse.urlunsplit((parts.scheme, f"{host}:{port}", parts.path or "/", parts.query, ""))
        headers = {**headers, "host": parts.netloc, "user-agent": "stagebeam"}
        extensions = {"sni_hostname": parts.hostname}
        with self._http.stream("POST", target, content=body, headers=headers, extensions=extensions) as answer:
            return answer.status_code

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _checked(self, host: str, port: int) -> str:
        addresses = self._resolve(host, port)
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise BadInput(
                f"{host} lies in a private network; set STAGEBEAM_WEBHOOK_PRIVATE=true if that is meant",
                code="webhook_refused",
            )
        return addresses[0]
