"""Fetch images from the web for a server that is allowed to, without reaching into its own network.

The name is resolved once, every address of it must be public, and the connection goes to the address that was checked:
a name that resolves to another one later gains nothing. Each redirect is checked in the same way.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import SplitResult, urljoin, urlsplit

_REDIRECTS, _SECONDS, _PART = 3, 20.0, 64 * 1024
_MOVED = (301, 302, 303, 307, 308)


class FetchError(ValueError):
    """An address that is not fetched; the message says why."""


def fetch(url: str, max_bytes: int) -> bytes:
    """The body of an http or https address.

    Raises:
        FetchError: another scheme, an address that is not public, an answer that is not 200, too large or too slow.
    """
    end = time.monotonic() + _SECONDS
    for _ in range(_REDIRECTS + 1):
        try:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise FetchError("an image's address must begin with http://, https:// or data:")
            body, moved = _get(parts, max_bytes, end)
            if not moved:
                return body
            url = urljoin(url, moved)
        except FetchError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:  # also where it is no valid address
            raise FetchError(f"{url[:100]} cannot be reached: {error}") from error
    raise FetchError(f"{url[:100]} redirects more than {_REDIRECTS} times")


def _get(parts: SplitResult, max_bytes: int, end: float) -> tuple[bytes, str]:
    """(body, the address it moved to or an empty string)."""
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    address = _public(host, port)
    stream = socket.create_connection((address, port), timeout=max(end - time.monotonic(), 0.1))
    if parts.scheme == "https":
        stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    connection.sock = stream
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": "varytoy", "Accept": "image/*"})
        reply = connection.getresponse()
        if reply.status in _MOVED and reply.headers.get("Location"):
            return b"", reply.headers["Location"]
        if reply.status != 200:
            raise FetchError(f"{host} answers {reply.status}")
        body = bytearray()
        while part := reply.read(_PART):
            body += part
            if len(body) > max_bytes:
                raise FetchError(f"an image is over {max_bytes / 2**20:.0f} MiB: send a smaller one")
            if time.monotonic() > end:
                raise FetchError(f"{host} takes longer than {_SECONDS:.0f} s")
        return bytes(body), ""
    finally:
        connection.close()


def _public(host: str, port: int) -> str:
    """An address of a host, all of which are public."""
    found = {each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    for each in found:
        if not is_public(str(each)):
            raise FetchError(f"{host} is not a public address: this server fetches from the public web only")
    return str(min(found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where an IPv6 address contains an IPv4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        inner += [each for each in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if each]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return all(each.is_global and not each.is_multicast for each in inner)
