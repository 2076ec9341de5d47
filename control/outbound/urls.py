"""Addresses that an operator writes for calls to be made to.  Pure."""

from __future__ import annotations

from urllib.parse import urlsplit


def url_problem(url: str) -> str:
    """What is wrong with a web address; "" when nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if port == 0:
        return "names port 0"
    if any(ord(character) <= 32 or ord(character) == 127 for character in url):
        return "has a blank or a control character in it"
    if not url.isascii():
        return "has characters beyond ASCII; write the host in its xn-- form and encode the path"
    return ""
