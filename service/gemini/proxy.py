"""The proxy for Gemini, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY; a netrc file is not read."""

from urllib.request import getproxies, proxy_bypass

from yarl import URL

from service.errors import SettingsError


def proxy_for(url: str) -> URL | None:
    """The proxy for a URL, with its user and password if any; raises SettingsError if it is not a usable URL."""
    target = URL(url)
    proxy = getproxies().get(target.scheme)
    if not proxy or proxy_bypass(f"{target.raw_host}:{target.port}"):
        return None
    try:
        # As in curl and the SDK, http:// may be left out.
        found = URL(proxy if "://" in proxy else f"http://{proxy}")
        (found.user or "").encode("latin-1"), (found.password or "").encode("latin-1")
        usable = found.scheme in ("http", "https") and found.host
    except ValueError:
        usable = None
    if not usable:
        # The value is not shown: it may contain a password.
        raise SettingsError(f"{target.scheme.upper()}_PROXY is not allowed: must look like http://host:port")
    return found
