"""Fetching against a real server on loopback, which counts every connection it sees."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.intake.fetch import Fetcher, is_public
from reasoning.errors import BadInput

BODY = b"picture" * 1000


@dataclass
class Site:
    """A web server whose name can be made to resolve to anything."""

    port: int
    asked: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = "site.example") -> str:
        return f"http://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b"x" * 2**16)
        elif path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            threading.Event().wait(0.5)
            self.close_connection = True
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
            self.close_connection = True
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200 if path == "/ok" else 404)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the fetcher hangs up on purpose

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        del format, args


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for site.example, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site.example")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + built.public_bytes(pem))
    return path


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as found:
        yield found


@pytest.fixture
def authority(certificate: Path) -> ssl.SSLContext:
    """Trusts that certificate alone."""
    return ssl.create_default_context(cafile=certificate)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a fetcher that hangs up is no news
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    Handler.site = Site(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Handler.site
    server.shutdown()
    thread.join()
    server.server_close()


def fetcher(*, limit: int = 10_000, timeout_s: float = 5.0, **names: str) -> Fetcher:
    """A fetcher for which loopback is public and names resolve as given."""
    return Fetcher(
        max_bytes=limit,
        timeout_s=timeout_s,
        allowed=lambda address: address == "127.0.0.1",
        resolve=lambda host, _port: [names.get(host.partition(".")[0], "127.0.0.1")],
    )


def code_of(fetch: Fetcher, url: str) -> str:
    with pytest.raises(BadInput) as caught:
        fetch.fetch(url)
    return caught.value.code


def test_an_image_arrives_with_its_query_and_over_redirects(site: Site):
    assert fetcher().fetch(site.url("/ok?a=1&b=ä c")) == BODY
    assert site.asked == ["/ok?a=1&b=%C3%A4%20c"]
    assert fetcher().fetch(site.url("/to//ok")) == BODY
    assert fetcher().fetch(site.url(f"/to/{site.url('/ok', 'other.example')}")) == BODY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]"])
def test_this_machine_is_never_asked(site: Site, host: str):
    assert code_of(Fetcher(max_bytes=100), site.url("/ok", host)) in ("image_url_refused", "image_url_failed")
    assert site.asked == []


def test_a_redirect_to_a_private_address_is_refused(site: Site):
    fetch = fetcher(private="10.0.0.1", file="")
    assert code_of(fetch, site.url("/to/http://private.example/x")) == "image_url_refused"
    assert code_of(fetch, site.url("/to/file:///etc/passwd")) == "image_url_refused"
    assert code_of(fetch, site.url("/to//to//to//to//to//to//ok")) == "image_url_failed"


def test_a_name_is_resolved_once_and_the_checked_address_is_used(site: Site):
    """DNS rebinding: the second answer, which nobody must ask for, would be a private address."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    fetch = fetcher()
    fetch.resolve = lambda _host, _port: answers.pop(0)
    assert fetch.fetch(site.url("/ok")) == BODY
    assert answers == [["10.0.0.1"]]


def test_one_private_address_among_public_ones_is_enough(site: Site):
    fetch = fetcher()
    fetch.resolve = lambda _host, _port: ["127.0.0.1", "10.0.0.1"]
    assert code_of(fetch, site.url("/ok")) == "image_url_refused"
    assert site.asked == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/none", "image_url_failed"),
        ("/endless", "image_too_large"),
        ("/short", "image_url_failed"),
        ("/to/", "image_url_failed"),
    ],
)
def test_bad_answers(site: Site, path: str, code: str):
    assert code_of(fetcher(), site.url(path)) == code


def test_the_size_is_known_before_the_body_is_read(site: Site):
    assert code_of(fetcher(limit=len(BODY) - 1), site.url("/ok")) == "image_too_large"
    assert fetcher(limit=len(BODY)).fetch(site.url("/ok")) == BODY


def test_a_server_that_drips_is_given_up(site: Site):
    assert code_of(fetcher(timeout_s=0.2), site.url("/drip")) == "image_url_failed"


def test_a_certificate_is_checked_against_the_name_and_not_the_address(tls_site: Site, authority: ssl.SSLContext):
    fetch = fetcher()
    fetch.tls = authority
    assert fetch.fetch(tls_site.url("/ok").replace("http:", "https:")) == BODY
    assert code_of(fetch, tls_site.url("/ok", "other.example").replace("http:", "https:")) == "image_url_failed"
    assert code_of(fetcher(), tls_site.url("/ok").replace("http:", "https:")) == "image_url_failed"


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert code_of(fetcher(), f"http://site.example:{port}/") == "image_url_failed"


@pytest.mark.parametrize(
    "url", ["http://", "http://user:word@site.example/", "http://site.example:99999/", "http://[::1", "gopher://x/"]
)
def test_addresses_that_are_none(url: str):
    assert code_of(fetcher(), url) in ("image_url_refused", "image_url_failed")


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_private_addresses_in_every_dress(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str):
    assert is_public(address)
