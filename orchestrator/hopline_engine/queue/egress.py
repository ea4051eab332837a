"""Which addresses the engine may call.

A host is resolved once, every address it has is judged, and the caller dials exactly what was judged, so a name
that answers differently a moment later (DNS rebinding) gains nothing. The list of refused networks is our own:
``ipaddress.is_global`` says yes to NAT64 and 6to4 forms of private addresses.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, NamedTuple

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host, as text, in the order they should be tried; raises ``OSError`` when there are none."""

_REFUSED_IPV4 = tuple(
    (ipaddress.IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud platform"),  # public by number, but only ever the inside of Azure
        ("169.254.0.0/16", "link-local or cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmark"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_IPV6 = tuple(
    (ipaddress.IPv6Network(network), why)
    for network, why in (
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PORTS = range(1, 65536)
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


class TargetBlockedError(httpx.ConnectError):
    """The URL, or an address it leads to, may not be called; nothing was sent."""


class Origin(NamedTuple):
    """What a connection is opened to and kept for."""

    tls: bool
    host: str
    """As in the URL: lower case, international names in their ASCII form, IPv6 without brackets."""
    port: int

    @property
    def netloc(self) -> str:
        """Host and port as a URL writes them, the port always."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def origin_of(url: httpx.URL) -> Origin:
    """Return where *url* leads; raise ``TargetBlockedError`` if it is not http(s) or carries credentials."""
    scheme = url.scheme
    default_port = _DEFAULT_PORTS.get(scheme)
    if default_port is None:
        raise TargetBlockedError(f'refused to call a URL of scheme "{scheme}": only http and https are called')
    if url.userinfo:
        raise TargetBlockedError(f"refused to call {url.host}: a URL must not carry a user name or password")
    host = url.raw_host.decode("ascii").lower()
    if not host:
        raise TargetBlockedError("refused to call a URL that names no host")
    port = default_port if url.port is None else url.port
    if port not in _PORTS:
        raise TargetBlockedError(f"refused to call {host}: there is no port {port}")
    return Origin(scheme == "https", host, port)


class Allowed(NamedTuple):
    """One entry of the setting ``allowed_targets``."""

    host: str | None
    network: Network | None
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> "Allowed":
        """Read ``host``, ``host:port``, an address (with or without port) or a network such as ``10.1.0.0/16``.

        Raises ``ValueError`` for anything else.
        """
        network = _network(entry)
        if network is not None:
            return cls(None, network, None)
        try:
            url = httpx.URL(f"target://{entry}/")  # a scheme without default port, which would swallow ":80"
        except httpx.InvalidURL as error:
            raise ValueError(_not_a_target(entry)) from error
        host, port = url.raw_host.decode("ascii").lower(), url.port
        network = _network(host)
        is_host = network is not None or _HOST_NAME.fullmatch(host) is not None
        if (
            not is_host
            or url.userinfo
            or url.raw_path != b"/"
            or url.fragment
            or (port is not None and port not in _PORTS)
        ):
            raise ValueError(_not_a_target(entry))
        return cls(None if network else _canonical(host), network, port)

    def covers(self, origin: Origin, address: Address) -> bool:
        """Return whether this entry permits dialling *address* for *origin*."""
        if self.port is not None and self.port != origin.port:
            return False
        if self.network is not None:
            return address in self.network
        return self.host == _canonical(origin.host)


class Guard:
    """Decides what may be dialled.

    ``open`` lets everything through and is meant for one machine; ``public`` lets through addresses of the public
    internet and what *allowed_targets* names. *resolve* replaces the system's name resolution.
    """

    def __init__(
        self, mode: Literal["open", "public"], allowed_targets: Iterable[str] = (), resolve: Resolve | None = None
    ) -> None:
        self._open = mode == "open"
        self._allowed = tuple(Allowed.parse(entry) for entry in allowed_targets)
        self._resolve = resolve or _resolve

    async def addresses(self, origin: Origin) -> list[str]:
        """Return the addresses to dial, in order; dial these, never the name.

        Raises ``TargetBlockedError`` when any of them is refused: a name with a public and a private address is a trap
        more often than an accident. Raises ``httpx.ConnectError`` when the host has no address.
        """
        try:
            # An address is not looked up: system resolvers also read "127.1" and "0x7f000001", and those are judged
            # by what they resolve to.
            found = [origin.host] if _address(origin.host) else await self._resolve(origin.host, origin.port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f'cannot find an address of "{origin.host}": {error}') from error
        if not found:
            raise httpx.ConnectError(f'"{origin.host}" has no address')
        if not self._open:
            for text in found:
                self._judge(origin, text)
        return found

    def _judge(self, origin: Origin, text: str) -> None:
        address = _address(text)
        if address is None:
            raise TargetBlockedError(f'refused to call {origin.host}: "{text}" is not an address')
        if any(entry.covers(origin, address) for entry in self._allowed):
            return
        why = refusal(address)
        if why:
            raise TargetBlockedError(
                f"refused to call {origin.host}: its address {address} is not on the public internet ({why}); "
                f'to permit it, add "{origin.netloc}" to the setting allowed_targets'
            )


def refusal(address: Address) -> str | None:
    """Return what kind of non-public address this is, or None for one on the public internet.

    >>> refusal(ipaddress.ip_address("64:ff9b::a9fe:a9fe"))
    'NAT64'
    """
    if isinstance(address, ipaddress.IPv4Address):
        return next((why for network, why in _REFUSED_IPV4 if address in network), None)
    for network, why in _REFUSED_IPV6:
        if address in network:
            return why
    return None if address in _GLOBAL_UNICAST_IPV6 else "reserved"


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])  # the zone of a link-local address
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _canonical(host: str) -> str:
    return host.lower().rstrip(".")


def _not_a_target(entry: str) -> str:
    return f'"{entry}" in the setting allowed_targets is not a host, a host:port, an address or a network'


async def _resolve(host: str, port: int) -> list[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
