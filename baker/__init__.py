"""bake: versioned templates in, verified machine images with their history out.

    import baker
    with baker.Baker() as bake:
        result = bake.build([baker.BuildRequest("web.yaml")])[0]

Names load when they are used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baker.core.version import VERSION

__version__ = VERSION
_HOMES = {
    "Baker": "baker.api",
    "BuildOptions": "baker.api",
    "BuildRequest": "baker.api",
    "BuildResult": "baker.api",
    "Home": "baker.core.home",
    "BakeError": "baker.core.errors",
    "Forward": "baker.core.model",
}
__all__ = ["BakeError", "Baker", "BuildOptions", "BuildRequest", "BuildResult", "Forward", "Home", "__version__"]  # noqa: F822 - found by __getattr__

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.core.errors import BakeError
    from baker.core.home import Home
    from baker.core.model import Forward
    from baker.plan.requests import BuildOptions, BuildRequest, BuildResult


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'baker' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
