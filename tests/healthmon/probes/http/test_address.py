"""What may be probed, as operators write it."""

from __future__ import annotations

import pytest

from healthmon.probes.http.address import (
    AddressError,
    follow,
    host_of,
    parse,
    problem,
    websocket_problem,
)


@pytest.mark.parametrize(
    ("text", "host", "port", "authority", "target"),
    [
        ("http://example.com", "example.com", 80, "example.com", "/"),
        ("https://Example.COM:443/a?b=c#d", "example.com", 443, "example.com", "/a?b=c"),
        ("https://example.com:8443?q", "example.com", 8443, "example.com:8443", "/?q"),
        ("http://[2001:DB8::1]:8080/", "2001:db8::1", 8080, "[2001:db8::1]:8080", "/"),
        ("http://127.0.0.1", "127.0.0.1", 80, "127.0.0.1", "/"),
        ("http://my_service:9000/x", "my_service", 9000, "my_service:9000", "/x"),
        ("http://bücher.example/ä?ö=ü", "xn--bcher-kva.example", 80, "xn--bcher-kva.example",
         "/%C3%A4?%C3%B6=%C3%BC"),
        ("http://faß.example/", "xn--fa-hia.example", 80, "xn--fa-hia.example", "/"),
        ("http://例え.jp/", "xn--r8jz45g.jp", 80, "xn--r8jz45g.jp", "/"),
        ("http://host/a%20b%2F", "host", 80, "host", "/a%20b%2F"),
    ],
)  # fmt: skip
def test_good_ones(text: str, host: str, port: int, authority: str, target: str) -> None:
    url = parse(text)
    assert (url.host, url.port, url.authority, url.target) == (host, port, authority, target)
    assert problem(text) == ""
    assert host_of(text) == host


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an address is needed"),
        ("example.com", "must begin with http:// or https://"),
        ("ftp://example.com", "must begin with http:// or https://"),
        ("http://", "names no host"),
        ("http://:80/", "names no host"),
        ("http://a b/", "no spaces"),
        ("http://a\r\nX: y/", "control characters"),
        ("http://a\\b/", "backslashes"),
        ("http://host:0/", "from 1 to 65535"),
        ("http://host:65536/", "from 1 to 65535"),
        ("http://host:x/", "from 1 to 65535"),
        ("http://[::1/", "not an IPv6 address"),
        ("http://[::g]/", "not an IPv6 address"),
        ("http://[fe80::1%25eth0]/", "not an IPv6 address"),
        ("http://256.1.1.1/", "neither a host name nor an IP address"),
        ("http://127.1/", "neither a host name nor an IP address"),
        ("http://0x7f000001/", "neither a host name nor an IP address"),
        ("http://2130706433/", "neither a host name nor an IP address"),
        ("http://-bad-.example/", "is not a host name"),
        ("http://a..b/", "is not a host name"),
        (f"http://{'a' * 64}.example/", "is not a host name"),
        ("http://\u2024\u2024/", "is not a host name"),
        ("http://host/" + "x" * 2000, "longer than 2000 characters"),
    ],
)
def test_bad_ones(text: str, words: str) -> None:
    assert words in problem(text)
    with pytest.raises(AddressError):
        parse(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    text = problem("https://jo:s3cret@example.com/")
    assert "belong into the options" in text
    assert "s3cret" not in text
    assert host_of("https://jo:s3cret@example.com/") == ""


def test_schemes_of_web_sockets() -> None:
    assert websocket_problem("wss://example.com/socket") == ""
    assert "ws:// or wss://" in websocket_problem("https://example.com/")
    assert host_of("wss://Example.com/") == "example.com"


def test_redirects_lead_where_a_browser_would_go() -> None:
    base = parse("https://example.com:8443/a/b?c=d")
    assert follow(base, "x").text == "https://example.com:8443/a/x"
    assert follow(base, "//other.example/y").text == "https://other.example/y"
    assert follow(base, " /sp ace ").text == "https://example.com:8443/sp%20ace"
    assert follow(base, "http://jo:pw@other.example/").text == "http://other.example/"
    with pytest.raises(AddressError, match="longer than"):
        follow(base, "/" + "x" * 3000)


def test_what_people_are_shown_has_no_query() -> None:
    assert parse("https://example.com/a?token=t").shown == "https://example.com/a"
