"""What is read from URLs and the environment, and what a request looks like as bytes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from droveway.errors import SettingsError
from droveway.transport import Origin, ProxyRules, Request, parse_url
from droveway.transport.message import request_bytes

API = Origin("https", "api.example", 443)


@pytest.mark.parametrize(
    ("url", "origin", "prefix"),
    [
        ("https://api.example", API, ""),
        ("HTTPS://API.example:443/", API, ""),
        ("https://api.example/v1/", API, "/v1"),
        ("http://127.0.0.1:8000/a/b", Origin("http", "127.0.0.1", 8000), "/a/b"),
        ("http://[::1]:9", Origin("http", "::1", 9), ""),
        ("https://bücher.example", Origin("https", "xn--bcher-kva.example", 443), ""),
        ("http://my_host", Origin("http", "my_host", 80), ""),
    ],
)
def test_a_base_url_is_an_origin_and_a_prefix(url: str, origin: Origin, prefix: str) -> None:
    assert parse_url(url) == (origin, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "", "api.example", "api.example:443", "ftp://api.example", "https://", "https:///v1",
        "https://api.example:0", "https://api.example:70000", "https://api.example:x",
        "https://api.example/?a=b", "https://api.example/#x", "https://api.example?",
        "https://a b.example", "https://api.example/\r\nX: y", "https://api.exa\tmple",
        "https://[::1", "https://api..example", "https://" + "a" * 64 + ".example",
        "https://api.example/é", "https://api.example\\@evil.example", "https://a,b",
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_url(url)
    assert "\n" not in caught.value.message


def test_a_password_in_a_base_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="api_key") as caught:
        parse_url("https://me:secret@api.example")
    assert "secret" not in caught.value.message


@given(st.text(max_size=30))
@example("http://[")
@example("http://\u2100.example")
def test_any_text_is_an_origin_or_a_settings_error(url: str) -> None:
    for candidate in (url, f"https://{url}"):
        try:
            origin, prefix = parse_url(candidate)
        except SettingsError:
            continue
        request_bytes(Request("GET", origin, f"{prefix}/"))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (API, "api.example"),
        (Origin("https", "api.example", 80), "api.example:80"),
        (Origin("http", "::1", 80), "[::1]"),
        (Origin("http", "::1", 81), "[::1]:81"),
    ],
)
def test_the_host_header_names_a_port_only_when_it_is_unusual(origin: Origin, host: str) -> None:
    assert f"\r\nHost: {host}\r\n".encode() in request_bytes(Request("GET", origin, "/"))


def test_a_length_is_given_where_a_body_is_expected() -> None:
    assert b"\r\nContent-Length: 0\r\n" in request_bytes(Request("POST", API, "/"))
    assert b"Content-Length" not in request_bytes(Request("GET", API, "/"))
    assert b"\r\nContent-Length: 1\r\n" in request_bytes(Request("GET", API, "/", (), b"x"))


def test_a_caller_may_choose_the_accepted_codings() -> None:
    written = request_bytes(Request("GET", API, "/", (("accept-encoding", "identity"),)))
    assert written.lower().count(b"accept-encoding") == 1


BAD_REQUESTS = {
    "a line break in a value": Request("GET", API, "/", (("a", "secret\r\nX: y"),)),
    "a carriage return in a value": Request("GET", API, "/", (("a", "secret\r"),)),
    "a line feed in a value": Request("GET", API, "/", (("a", "secret\n"),)),
    "a NUL in a value": Request("GET", API, "/", (("a", "secret\0"),)),
    "a value beyond Latin-1": Request("GET", API, "/", (("a", "secret 钥匙"),)),
    "a space in the path": Request("GET", API, "/a b"),
    "a line break in the path": Request("GET", API, "/a\r\nX: y"),
    "a NUL in the path": Request("GET", API, "/a\0"),
    "no slash": Request("GET", API, "v1"),
    "a path that is not encoded": Request("GET", API, "/é"),
    "a method with a space": Request("GET /", API, "/"),
    "a header name with a colon": Request("GET", API, "/", (("a:b", "c"),)),
    "an empty header name": Request("GET", API, "/", (("", "c"),)),
    "a second length": Request("GET", API, "/", (("Content-Length", "0"),)),
    "a second host": Request("GET", API, "/", (("HOST", "x"),)),
    "a transfer coding": Request("GET", API, "/", (("Transfer-Encoding", "chunked"),)),
}


@pytest.mark.parametrize("request_", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_would_break_out_of_the_head_is_refused(request_: Request) -> None:
    with pytest.raises(ValueError) as caught:
        request_bytes(request_)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_no_text_adds_a_line_to_the_head(name: str, value: str, path: str) -> None:
    request = Request("GET", API, f"/{path}", ((name, value),))
    try:
        written = request_bytes(request)
    except ValueError:
        return
    assert len(written.split(b"\r\n")) == 6
    assert len(written.splitlines()) >= 5
    assert written.split(b"\r\n")[0].count(b" ") == 2


RULES = ProxyRules.from_environment(
    {
        "HTTP_PROXY": "proxy.example:3128",
        "https_proxy": "http://secure.example:3129",
        "HTTPS_PROXY": "http://not-this.example",
        "NO_PROXY": "internal.example, .dot.example,*.star.example;, host.example:8443,10.0.0.0/8 [fe80::1]:80",
    }
)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "proxy"),
    [
        ("http", "api.example", 80, "proxy.example"),
        ("https", "api.example", 443, "secure.example"),
        ("https", "internal.example", 443, None),
        ("https", "a.internal.example", 443, None),
        ("https", "notinternal.example", 443, "secure.example"),
        ("https", "a.dot.example", 443, None),
        ("https", "host.example", 8443, None),
        ("https", "host.example", 443, "secure.example"),
        ("http", "10.1.2.3", 80, None),
        ("http", "11.1.2.3", 80, "proxy.example"),
        ("http", "fe80::1", 80, None),
        ("http", "fe80::1", 81, "proxy.example"),
        ("http", "127.8.9.1", 80, None),
        ("http", "::1", 80, None),
        ("http", "localhost", 80, None),
        ("http", "a.localhost", 80, None),
    ],
)
def test_an_origin_goes_the_way_the_environment_says(
    *, scheme: str, host: str, port: int, proxy: str | None
) -> None:
    found = RULES.proxy_for(Origin(scheme, host, port))
    assert (found.origin.host if found else None) == proxy


def test_one_variable_may_stand_for_all_and_one_star_for_none() -> None:
    rules = ProxyRules.from_environment({"ALL_PROXY": "http://p.example:1"})
    assert rules.http == rules.https
    assert rules.proxy_for(API)
    assert not ProxyRules.from_environment({"all_proxy": "p.example:1", "no_proxy": "*"}).proxy_for(
        API
    )
    assert ProxyRules.from_environment({}) == ProxyRules()
    assert not ProxyRules.from_environment({"http_proxy": " "}).http


@pytest.mark.parametrize(
    "url", ["socks5://me:secret@p.example", "http://me:secret@", "http://me:secret@p:x", "http://["]
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_variable(url: str) -> None:
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as caught:
        ProxyRules.from_environment({"HTTPS_PROXY": url})
    assert "secret" not in caught.value.message
