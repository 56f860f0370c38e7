"""The HTTP proxy that the host's environment names."""

from __future__ import annotations

import urllib.parse
import urllib.request


def proxy_for(scheme: str, host: str) -> str | None:
    """The URL of the proxy that this host's environment (`http_proxy`, `https_proxy`, `no_proxy`) names for `host`, if any."""
    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
