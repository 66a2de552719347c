"""Whether a request that changes something comes from a page of our own. Pure.

A browser sends the session's cookie with whatever some page makes it send. Of a request with an API key in
a header this need not be asked: no page of another origin can add that.
"""

from typing import Final

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_own(fetch_site: str | None, origin: str | None, own: str) -> bool:
    """Tell whether ``Sec-Fetch-Site``, or without it ``Origin``, says so; ``own`` is our origin.

    Without either nobody knows, and the answer is no: every browser sends one of them with a POST.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin"
    return origin is not None and _plain(origin) == _plain(own)


def origin_of(url: str) -> str:
    """Return the origin of an absolute URL."""
    return "/".join(url.split("/", 3)[:3])


def _plain(origin: str) -> str:
    scheme, _, host = origin.lower().partition("://")
    port = {"https": ":443", "http": ":80"}.get(scheme, "")
    return f"{scheme}://{host.removesuffix(port)}"


def local_path(path: str | None) -> str | None:
    """Return a path of this service as it was given; None for what may lead a browser elsewhere."""
    if path is None or not path.startswith("/") or len(path) > _MAX_PATH:
        return None
    # Browsers read \ as /, drop tabs and line feeds, and take // for a host.
    if path.startswith("//") or "\\" in path or not path.isascii() or not path.isprintable():
        return None
    return path


_MAX_PATH: Final = 1024
