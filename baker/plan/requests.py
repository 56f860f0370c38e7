"""The requests and results of builds: frozen values, which worker processes get as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baker.core.model import Accelerator

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord
    from baker.template.model import OnError


@dataclass(frozen=True)
class BuildOptions:
    """How to build: one value from the command line to the recipe. Steps are named as the user typed them;
    `baker.plan.step_range.layer_options` parses them."""

    on_error: OnError | None = None  # overrides the template's and the step's
    skip_verify: bool = False
    force: bool = False  # build although the catalog has an image with this fingerprint
    keep_failed: bool = False  # leave the machine of a failed verification running
    pull: bool = False  # fetch the source again instead of using this host's copy
    uri: str | None = None  # of the libvirt connection; None: libvirt's driver in this process
    accelerator: Accelerator | None = None  # overrides the template's
    no_cache: bool = False  # start from the source and not from a layer
    first: str | None = None  # run this step (name or number) and those after it, even when there are layers
    last: str | None = None  # stop after this step: the result is a layer and not an image
    locked: bool = False  # fail unless the inputs match the lock file beside the template
    clock: str | None = None  # the time at which the build machine's clock starts, ISO 8601 UTC; None: the real time
    replay: Path | None = None  # a directory with recorded downloads, which replace the network

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BuildOptions:
        """The options of a JSON object that was made of `dataclasses.asdict`. Unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        arguments = {name: item for name, item in value.items() if name in known}
        return cls(**arguments | {"replay": Path(value["replay"]) if value.get("replay") else None})


@dataclass(frozen=True)
class BuildRequest:
    """What to build, and how. Paths may be relative; variables are strings, as on a command line."""

    path: str | Path
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    var_files: tuple[str | Path, ...] = ()
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)

    def to_json(self) -> dict[str, Any]:
        replay = self.options.replay
        return asdict(self) | {
            "path": str(Path(self.path).absolute()),
            "var_files": [str(Path(p).absolute()) for p in self.var_files],
            "options": asdict(self.options) | {"replay": str(replay.absolute()) if replay else None},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BuildRequest:
        known = {f.name for f in fields(cls)}
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known}
        return cls(**arguments | {"options": BuildOptions.from_json(value.get("options", {}))})


@dataclass(frozen=True)
class BuildResult:
    """The result of one build. `status`: built, unchanged, stopped, failed, interrupted, skipped."""

    name: str
    version: str
    status: str
    image: ImageRecord | None
    build_id: str
    seconds: float
    error: str
    exit_code: int
    code: str = ""  # of the error, see docs/errors.md
