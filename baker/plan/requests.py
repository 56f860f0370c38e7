"""What is asked of the API, and how it went: frozen values that also go to workers as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baker.core.model import Accelerator

if TYPE_CHECKING:
    from baker.build.values import BuildOptions
    from baker.catalog.records import ImageRecord
    from baker.template.model import OnError


@dataclass(frozen=True)
class BuildRequest:
    """What to build and how. Paths may be relative; variables are strings as typed on a command line."""

    path: str | Path
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    var_files: tuple[str | Path, ...] = ()
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    on_error: OnError | None = None
    skip_verify: bool = False
    force: bool = False
    keep_failed: bool = False
    pull: bool = False
    uri: str | None = None
    accelerator: Accelerator | None = None
    no_cache: bool = False
    first: str | None = None
    last: str | None = None
    locked: bool = False  # hold the build to the lock file beside its template

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(Path(self.path).absolute()), "var_files": [str(Path(p).absolute()) for p in self.var_files]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BuildRequest:
        known = {f.name for f in fields(cls)}
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return cls(**arguments)


@dataclass(frozen=True)
class BuildResult:
    """How one build ended. `status`: built, unchanged, failed, interrupted, skipped."""

    name: str
    version: str
    status: str
    image: ImageRecord | None
    build_id: str
    seconds: float
    error: str
    exit_code: int
    code: str = ""  # the error's, see docs/errors.md


def options(request: BuildRequest) -> BuildOptions:
    from baker.build.values import BuildOptions

    return BuildOptions(
        on_error=request.on_error,
        skip_verify=request.skip_verify,
        force=request.force,
        keep_failed=request.keep_failed,
        pull=request.pull,
        uri=request.uri,
        no_cache=request.no_cache,
        first=request.first,
        last=request.last,
        locked=request.locked,
    )
