"""A template as frozen values. load.py creates them; the template reference and the JSON Schema are generated from the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from baker.core.model import DiskFormat
from baker.core.secrets import Secrets
from baker.core.units import Duration
from baker.template.base_model import Frozen, Paths, Words, one_or_more
from baker.template.builders import BuilderConfig
from baker.template.ec2 import AmiSource, SourceAmiFilter, SsmParameterSource
from baker.template.epoch import DateEpoch
from baker.template.git import GitFacts

COMPRESSIONS: Mapping[str, tuple[str, ...]] = {"qcow2": ("zlib", "zstd"), "vmdk": ("zlib",)}  # format -> the compressions that it supports
# Debian Policy 5.6.1 and 5.6.12. apt accepts an architecture behind a name, and a version or a suite.
DEBIAN_PACKAGE = r"^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[0-9][A-Za-z0-9.+~:-]*|/[a-z][a-z0-9.-]*)?$"
CHECKSUM = r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
OnError = Literal["cleanup", "abort", "ask", "shell"]


Packages = Annotated[
    tuple[Annotated[str, Field(pattern=DEBIAN_PACKAGE)], ...], BeforeValidator(one_or_more, json_schema_input_type=str | list[str])
]


class DebootstrapSource(Frozen):
    """A Debian root file system made by mmdebstrap, on a disk that boots under BIOS and UEFI."""

    kind: ClassVar[str] = "debootstrap"
    suite: str = Field(pattern=r"^[a-z][a-z0-9.-]*$", description="Debian suite by code name", examples=["trixie", "bookworm"])
    packages: Packages = Field((), description="packages to install besides those that the disk needs to boot and to accept SSH")
    components: Words = Field(("main",), description="archive components")
    mirror: str | None = Field(
        None, description="URL of the archive; default: mmdebstrap's default for the suite", pattern=r"^(https?|file|copy)://?\S+$"
    )
    keyring: Path | None = Field(None, description="file with the keys that sign the archive; default: the host's Debian keyring")
    variant: Literal["minbase", "apt", "required", "important", "standard"] = Field("minbase", description="mmdebstrap's package selection")
    hostname: str = Field("debian", description="content of /etc/hostname", pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")


class FileSource(Frozen):
    """A disk image file on this host."""

    kind: ClassVar[str] = "file"
    path: Path = Field(description="path of the file, relative to the template")
    format: DiskFormat | None = Field(None, description="disk format; default: detected")
    checksum: str | None = Field(None, pattern=CHECKSUM, description='checksum of the file: "sha256:..." or "sha512:..."')


class UrlSource(Frozen):
    """A disk image at an http(s) URL. The checksum ensures that every build starts from the same image."""

    kind: ClassVar[str] = "url"
    url: str = Field(pattern=r"^https?://\S+$", description="URL of the disk image")
    checksum: str = Field(pattern=CHECKSUM, description='checksum of the file: "sha256:..." or "sha512:..."')
    format: DiskFormat | None = Field(None, description="disk format; default: detected")


class ImageSource(Frozen):
    """An image of the catalog: name, name@1.2.3, name@^1.2, name@channel, sha256:..., or an id."""

    kind: ClassVar[str] = "image"
    image: str = Field(
        alias="name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*(@\S+)?$", description="reference to the image", examples=["debian-13@^13.1"]
    )
    template: Path | None = Field(
        None, description="template that bakes the image when it is missing; default: the template of that name beside this one"
    )


AnySource = DebootstrapSource | FileSource | UrlSource | ImageSource | AmiSource | SourceAmiFilter | SsmParameterSource


class CommunicatorSpec(Frozen):
    """How bake reaches the machine: SSH, over one shared connection."""

    ssh_username: str | None = Field(None, description="user that logs in; default: the user of the source, else root")
    ssh_timeout: Duration = Field(600.0, description="timeout for SSH to answer after the machine starts")
    ssh_private_key_file: Path | None = Field(None, description="private key, for a source into which bake cannot inject one")
    ssh_host_key: str | None = Field(None, description='host key of such a source: "ssh-ed25519 AAAA..."')
    shutdown_timeout: Duration = Field(120.0, description="timeout for the machine to shut down")


class CacheSpec(Frozen):
    """When a step's layer may be used in place of running the step. `cache: false` is `enabled: false`."""

    enabled: bool = Field(True, description="false: run the step in every build")
    max_age: Duration | None = Field(None, description="run the step again when its layer is older than this")
    keep: bool = Field(False, description="true: keep a snapshot of the machine after this step even if it saves little time")


@dataclass(frozen=True)
class Step:
    """One provisioning step, after includes and bundles are expanded and only/except are applied."""

    name: str
    kind: str  # "shell", "file", "ansible", or the name of a plugin
    config: BaseModel = field(repr=False)  # an instance of the kind's model; it may have secrets
    base_dir: Path  # relative paths in `config` are relative to it
    origin: str  # "web.yaml:12:5"
    bundle: str = ""  # name of the bundle that it is from
    timeout: float | None = None  # seconds
    retries: int = 0
    pause_before: float = 0.0
    on_error: OnError | None = None
    cache: CacheSpec = field(default_factory=CacheSpec)


class VerifySpec(Frozen):
    """testinfra (pytest) files to run against the captured image."""

    testinfra: Paths = Field(min_length=1, description="test files or directories, relative to the template or bundle")
    timeout: Duration = Field(600.0, description="timeout for all tests")
    vars: Mapping[str, Any] = Field(default_factory=dict, description="values for the tests; a bundle's parameters are added to them")


class TestinfraVerify(VerifySpec):
    """A VerifySpec with the directory that its paths are relative to, and the name of its bundle."""

    __test__ = False

    base_dir: Path = Path()
    bundle: str = ""


class ExportPostProcessor(Frozen):
    """Writes the finished image to a file."""

    format: Literal["qcow2", "raw", "vmdk", "vhdx", "vdi", "tar"] = Field(description="file format; tar holds the root file system")
    path: Path | None = Field(None, description="path of the file; default: <name>-<version>.<format> beside the template")
    compress: Literal["none", "zlib", "zstd"] = Field("none", description="compression inside the file, for formats that support it")

    @model_validator(mode="after")
    def _can_be_compressed(self) -> Self:
        if self.compress != "none" and self.compress not in COMPRESSIONS.get(self.format, ()):
            can = ", ".join(f"{name} with {' or '.join(ways)}" for name, ways in COMPRESSIONS.items())
            raise ValueError(f"a {self.format} file cannot be compressed with {self.compress}: supported are {can}")
        return self


@dataclass(frozen=True)
class Variable:
    """A variable with its value in this build."""

    name: str
    value: Any
    type: str
    sensitive: bool
    origin: str  # "default", "--var", "prod.vars.yaml", "BAKE_VAR_x"

    def __repr__(self) -> str:
        return f"Variable({self.name}={'***' if self.sensitive else repr(self.value)}, {self.origin})"


@dataclass(frozen=True)
class Template:
    """One image to build. Every value is resolved, and no expression is left."""

    name: str
    version: str
    description: str
    labels: Mapping[str, str]
    variables: Mapping[str, Variable]
    source: AnySource
    builder: BuilderConfig
    communicator: CommunicatorSpec
    provisioners: tuple[Step, ...]
    verify: tuple[TestinfraVerify, ...]  # the template's, then those of each bundle that it uses
    on_error: OnError
    post_processors: tuple[ExportPostProcessor, ...]
    reproducible: bool
    path: Path  # of the template file, absolute
    text: str = field(repr=False)  # of the template file, with keyed hashes in place of sensitive values
    files: tuple[Path, ...]  # every other file that was read: includes, bundles
    matrix: Mapping[str, Any] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    environment: Mapping[str, str] = field(default_factory=dict)  # the environment variables that expressions use
    git: GitFacts = field(default_factory=GitFacts, repr=False, compare=False)
    epoch: DateEpoch = field(default_factory=DateEpoch, repr=False, compare=False)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)  # every file that loading read, with its bytes

    @property
    def git_commit(self) -> str:
        """The commit of the repository around the template; "" outside one. The first access may run git."""
        return self.git.commit

    @property
    def git_dirty(self) -> bool:
        """True when the work tree around the template differs from that commit."""
        return self.git.dirty
