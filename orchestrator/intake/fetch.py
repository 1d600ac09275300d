"""Images by http(s) address, never from a private network.

The name is resolved once, every address is checked, and the connection goes to a checked address: a second
look-up could answer differently (DNS rebinding). Each redirect goes through the same door. No proxy settings
of the environment are used, since a proxy would resolve the name by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.intake.records import shorten
from reasoning.errors import BadInput

MAX_REDIRECTS = 5
READ_BYTES = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)

Resolve = Callable[[str, int], list[str]]
"""Host and port to numeric addresses. Raises OSError."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of a host by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, seen through the forms that embed another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.teredo:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


@dataclass(slots=True, kw_only=True)
class Fetcher:
    """Fetches images with a limit on bytes and on the whole time, redirects included."""

    max_bytes: int
    timeout_s: float = 20.0
    allowed: Callable[[str], bool] = is_public
    resolve: Resolve = resolve_host
    clock: Callable[[], float] = time.monotonic
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def fetch(self, url: str) -> bytes:
        """The body of the address.

        Raises:
            BadInput: `image_url_refused` (private network, user or scheme in it that is not allowed),
                `image_url_failed` (no answer, an error status, too slow), `image_too_large`.
        """
        end = self.clock() + self.timeout_s
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._get(url, end)
                if isinstance(answer, bytes):
                    return answer
                url = urllib.parse.urljoin(url, answer.location)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(url, f"{type(error).__name__}: {error}") from error
        raise _failed(url, f"it redirects more than {MAX_REDIRECTS} times")

    def _get(self, url: str, end: float) -> bytes | _Redirect:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise _refused(url, "only plain http and https addresses without a user name are fetched")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        sock = self._connect(url, parts.hostname, port, end)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, port)
        # A socket's own time-out starts anew with every byte; a server that drips must not hold a thread for long.
        watch = threading.Timer(self._left(end), _hang_up, [sock])
        watch.start()
        try:
            if parts.scheme == "https":
                sock = self.tls.wrap_socket(sock, server_hostname=parts.hostname)
            connection.sock = sock
            target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("GET", _quoted(target), headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            with connection.getresponse() as response:
                answer = self._read(url, response)
            self._left(end)
            return answer
        finally:
            watch.cancel()
            connection.close()
            sock.close()

    def _connect(self, url: str, host: str, port: int, end: float) -> socket.socket:
        addresses = self.resolve(host, port)
        if not addresses or not all(self.allowed(address) for address in addresses):
            raise _refused(url, f'"{shorten(host, 80)}" is not an address on the public internet')
        return socket.create_connection((addresses[0], port), timeout=self._left(end))

    def _read(self, url: str, response: http.client.HTTPResponse) -> bytes | _Redirect:
        if response.status in REDIRECTS:
            return _Redirect(response.headers.get("Location") or "")
        if response.status != 200:
            raise _failed(url, f"the server answered {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _failed(url, "the server compressed the image although it was asked not to")
        body = bytearray()
        while True:
            piece = response.read1(READ_BYTES)
            body += piece
            if len(body) > self.max_bytes or (response.length or 0) > self.max_bytes:
                raise BadInput(
                    f"the image at this address is larger than {self.max_bytes} bytes; scale it down.",
                    code="image_too_large",
                )
            if not piece:
                break
        if response.length:
            raise _failed(url, "the connection ended before the image was whole")
        return bytes(body)

    def _left(self, end: float) -> float:
        left = end - self.clock()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {self.timeout_s:g} s")
        return left


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed in the same moment
        sock.shutdown(socket.SHUT_RDWR)


def _quoted(target: str) -> str:
    return urllib.parse.quote(target, safe="/?#[]@!$&'()*+,;=:%~")


def _refused(url: str, why: str) -> BadInput:
    return BadInput(
        f"{shorten(url, 120)} is not fetched: {why}. Fetch it yourself and send a path or a data URI.",
        code="image_url_refused",
    )


def _failed(url: str, why: str) -> BadInput:
    return BadInput(
        f"{shorten(url, 120)} could not be fetched: {why}. Check the address, or send a data URI.",
        code="image_url_failed",
    )
