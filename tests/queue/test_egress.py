"""The egress guard: which URLs and addresses are called, and that what was judged is what is dialled."""

import ipaddress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.queue.connection import Limits
from hopline_engine.queue.egress import Guard, Origin, TargetBlockedError, origin_of, refusal
from hopline_engine.queue.transport import Transport
from tests.queue.servers import always_ok, serving

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Names:
    """A resolver that gives its answers in turn, the last one for ever, and counts the questions."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> list[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


async def call(url: str, guard: Guard) -> int:
    transport = Transport(guard, Limits())
    try:
        response = await transport.handle_async_request(httpx.Request("GET", url))
        return response.status_code
    finally:
        await transport.aclose()


# Addresses


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0.0.0.0", "this host"),
        ("10.1.2.3", "private"),
        ("100.100.100.200", "carrier-grade NAT"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("168.63.129.16", "cloud platform"),
        ("169.254.169.254", "link-local or cloud metadata"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.8", "protocol assignments"),
        ("192.0.0.192", "protocol assignments"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "benchmark"),
        ("198.19.255.255", "benchmark"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "reserved"),
        ("::1", "loopback"),
        ("::127.0.0.1", "reserved"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:93.184.216.34", "IPv4-mapped"),
        ("64:ff9b::a9fe:a9fe", "NAT64"),
        ("64:ff9b:1::a9fe:a9fe", "NAT64"),
        ("100::1", "reserved"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("2001:2::1", "protocol assignments"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("3fff::1", "documentation"),
        ("5f00::1", "reserved"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
    ],
)
async def test_address_that_is_not_on_the_public_internet_is_refused(address: str, why: str) -> None:
    assert refusal(ipaddress.ip_address(address)) == why
    with pytest.raises(TargetBlockedError):
        await Guard("public").addresses(Origin(False, address, 80))


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"])
async def test_public_address_is_dialled(address: str) -> None:
    assert await Guard("public").addresses(Origin(False, address, 80)) == [address]


@given(st.ip_addresses())
def test_nothing_passes_that_the_standard_library_calls_not_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert address.is_global or refusal(address)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::", "2002::", "2001::"]))
def test_no_ipv6_form_of_an_ipv4_address_passes(address: ipaddress.IPv4Address, prefix: str) -> None:
    shift = 80 if prefix == "2002::" else 0
    assert refusal(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address) << shift))


async def test_open_guard_lets_every_address_through() -> None:
    assert await Guard("open").addresses(Origin(False, "169.254.169.254", 80)) == ["169.254.169.254"]


async def test_one_private_address_among_public_ones_refuses_all() -> None:
    guard = Guard("public", resolve=Names([PUBLIC, "10.0.0.1"]))
    with pytest.raises(TargetBlockedError, match=r"10\.0\.0\.1"):
        await guard.addresses(Origin(True, "both.test", 443))


async def test_resolver_that_gives_no_address_is_refused() -> None:
    with pytest.raises(TargetBlockedError, match="not an address"):
        await Guard("public", resolve=Names(["localhost"])).addresses(Origin(False, "h.test", 80))
    with pytest.raises(httpx.ConnectError, match="has no address"):
        await Guard("public", resolve=Names([])).addresses(Origin(False, "h.test", 80))


async def test_refusal_says_which_setting_permits_the_target() -> None:
    with pytest.raises(TargetBlockedError) as blocked:
        await Guard("public", resolve=Names(["10.0.0.7"])).addresses(Origin(True, "erp.internal", 8443))
    assert str(blocked.value) == (
        "refused to call erp.internal: its address 10.0.0.7 is not on the public internet (private); "
        'to permit it, add "erp.internal:8443" to the setting allowed_targets'
    )


# URLs

HOSTILE = """
http://169.254.169.254/latest http://2852039166/ http://0xa9fea9fe/ http://0251.0376.0251.0376/ http://169.254.43518/
http://[::ffff:169.254.169.254]/ http://[::ffff:a9fe:a9fe]/ http://[64:ff9b::a9fe:a9fe]/ http://[2002:a9fe:a9fe::1]/
http://127.0.0.1/ http://127.1/ http://0/ http://0x7f.1/ http://0.0.0.0/ http://localhost/ http://LOCALHOST./
http://[::1]/ http://[::]/ http://[0:0:0:0:0:0:0:1]/ http://[fe80::1%25lo]/ http://[fd00:ec2::254]/
http://100.100.100.200/ http://10.0.0.1/ http://192.168.1.1/ http://172.17.0.1/
http://①②⑦.⓪.⓪.①/ http://127。0。0。1/ http://\uff11\uff12\uff17.0.0.1/ http://%31%32%37.0.0.1/
http://user@127.0.0.1/ http://example.com@127.0.0.1/ http://user:pw@93.184.216.34/ http://127.0.0.1:80#@example.com/
http://127.0.0.1:80\\@93.184.216.34/ http://93.184.216.34@127.0.0.1:80@93.184.216.34/ http://[127.0.0.1]/ http:///x
file:///etc/passwd gopher://127.0.0.1/ ftp://93.184.216.34/ http+unix://%2Fvar%2Frun%2Fdocker.sock/ //93.184.216.34/
HTTPS://127.0.0.1/ ws://93.184.216.34/ data:text/plain,x javascript:alert(1) http:127.0.0.1/
""".split()  # noqa: SIM905 - one URL a line would be longer and say no more


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_url_is_not_called(url: str) -> None:
    # Names are looked up by the system: that is what reads the strange forms of addresses.
    with pytest.raises((TargetBlockedError, httpx.InvalidURL, httpx.ConnectError)) as refused:
        await call(url, Guard("public"))
    if type(refused.value) is httpx.ConnectError:
        assert "cannot find an address" in str(refused.value), "it was dialled"


@pytest.mark.parametrize("url", ["http://user:secret@h.test/", "ftp://user:secret@h.test/"])
def test_refused_url_does_not_leak_its_password(url: str) -> None:
    with pytest.raises(TargetBlockedError) as blocked:
        origin_of(httpx.URL(url))
    assert "secret" not in str(blocked.value)


def test_origin_is_the_same_for_every_spelling_of_it() -> None:
    assert origin_of(httpx.URL("HTTPS://Example.COM/a?b")) == Origin(True, "example.com", 443)
    assert origin_of(httpx.URL("https://example.com:443")) == Origin(True, "example.com", 443)
    assert origin_of(httpx.URL("http://bücher.example:8080/")) == Origin(False, "xn--bcher-kva.example", 8080)
    assert origin_of(httpx.URL("http://[2001:DB8::1]/")) == Origin(False, "2001:db8::1", 80)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(TargetBlockedError, match="there is no port"):
        origin_of(httpx.URL(f"http://h.test:{port}/"))


# Rebinding


async def test_address_that_was_judged_is_the_one_that_is_dialled() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with serving(always_ok) as server:
        # The name exists only in the resolver given: whoever looked it up again would not arrive.
        url = f"http://rebinding.test:{server.port}/"
        assert await call(url, Guard("public", ["127.0.0.1"], resolve=names)) == 200
        assert names.asked == 1


async def test_every_new_connection_is_judged_again() -> None:
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    guard = Guard("public", ["127.0.0.1"], resolve=names)
    async with serving(always_ok) as server:
        url = f"http://rebinding.test:{server.port}/"
        assert await call(url, guard) == 200
        with pytest.raises(TargetBlockedError):
            await call(url, guard)


# The allow list


@pytest.mark.parametrize(
    ("entry", "origin", "address"),
    [
        ("erp.internal", Origin(True, "erp.internal", 443), "10.0.0.7"),
        ("ERP.internal.", Origin(False, "erp.internal", 8000), "10.0.0.7"),
        ("erp.internal:443", Origin(True, "erp.internal.", 443), "10.0.0.7"),
        ("bücher.example", Origin(True, "xn--bcher-kva.example", 443), "10.0.0.7"),
        ("10.0.0.0/8", Origin(True, "erp.internal", 443), "10.200.0.7"),
        ("10.0.0.7", Origin(True, "erp.internal", 443), "10.0.0.7"),
        ("10.0.0.7:443", Origin(True, "erp.internal", 443), "10.0.0.7"),
        ("::1", Origin(False, "localhost", 80), "::1"),
        ("[::1]:8080", Origin(False, "::1", 8080), "::1"),
        ("fd00::/8", Origin(False, "h", 8080), "fd12::1"),
    ],
)
async def test_allowed_target_is_dialled(entry: str, origin: Origin, address: str) -> None:
    guard = Guard("public", [entry], resolve=Names([address]))
    assert await guard.addresses(origin) == [address]


@pytest.mark.parametrize(
    ("entry", "origin", "address"),
    [
        ("erp.internal", Origin(True, "x.erp.internal", 443), "10.0.0.7"),
        ("erp.internal", Origin(True, "erp.internal.evil.test", 443), "10.0.0.7"),
        ("erp.internal:80", Origin(False, "erp.internal", 8080), "10.0.0.7"),
        ("erp.internal:443", Origin(False, "erp.internal", 80), "10.0.0.7"),
        ("10.0.0.0/24", Origin(False, "erp.internal", 80), "10.0.1.7"),
        ("10.0.0.7:80", Origin(False, "erp.internal", 8080), "10.0.0.7"),
        ("10.0.0.7", Origin(False, "10.0.0.7.evil.test", 80), "10.0.0.8"),
        ("0.0.0.0/0", Origin(False, "h", 80), "::1"),
    ],
)
async def test_neighbour_of_an_allowed_target_is_refused(entry: str, origin: Origin, address: str) -> None:
    with pytest.raises(TargetBlockedError):
        await Guard("public", [entry], resolve=Names([address])).addresses(origin)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "http://h",
        "h/path",
        "h:port",
        "h:0",
        "a..b",
        "[::1",
        "h:99999",
        "user@h",
        "*.internal",
        "10.0.0.0/33",
        "h?x",
        "h#x",
        "a b",
        ":80",
        "a,b",
    ],
)
def test_entry_that_is_no_target_is_refused_with_the_name_of_the_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="in the setting allowed_targets is not a host"):
        Guard("public", [entry])
