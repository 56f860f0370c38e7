"""The YAML language as models: what a template, an include and a bundle may hold. The JSON Schema and the reference are made of
these. Kinds of steps and builders are not here: each has its own model (baker/provision, builders.py).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from baker.core.units import Duration
from baker.template.base_model import Frozen, Words
from baker.template.ec2 import AmiSource, SourceAmiFilter, SsmParameterSource
from baker.template.model import (
    AnySource,
    CacheSpec,
    CommunicatorSpec,
    DebootstrapSource,
    ExportPostProcessor,
    FileSource,
    ImageSource,
    OnError,
    UrlSource,
    VerifySpec,
)

NAME = r"^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$"
BUNDLE_NAME = r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$"
VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
# Semantic Versioning 2.0.0: three numbers without leading zeros, -pre.release, +build
_NUMBER = r"(0|[1-9][0-9]{0,17})"
_PRE = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
VERSION = rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE}(\.{_PRE})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"

Type = Literal["string", "number", "integer", "boolean", "list", "map"]


class VariableSpec(Frozen):
    """A declared variable. One without a default must be given: --var NAME=VALUE, --var-file, or BAKE_VAR_NAME."""

    type: Type | None = Field(None, description="left out, that of the default, else string")
    default: Any = Field(None, description="its value when nobody gives one")
    description: str = Field("", description="what it is for")
    sensitive: bool = Field(False, description="true: never shown, logged or recorded")
    allowed: tuple[Any, ...] | None = Field(None, min_length=1, description="the only values it may have")
    pattern: str | None = Field(None, description="regular expression that the whole of a string must match")

    @property
    def optional(self) -> bool:
        return "default" in self.model_fields_set


class ParameterSpec(VariableSpec):
    """A declared parameter of a bundle. One without a default must be given in `with`."""

    required: bool = Field(True, description="false: it may be left out, and is null then")

    @property
    def optional(self) -> bool:
        return super().optional or not self.required


def _as(key: str, model: Any) -> Any:
    """The short form of a source: its one important key alone."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=str | model)


class SourceSpec(Frozen):
    """What the image starts from: exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    debootstrap: Annotated[DebootstrapSource, _as("suite", DebootstrapSource)] | None = Field(
        None, description="Debian from packages; or the suite alone"
    )
    file: Annotated[FileSource, _as("path", FileSource)] | None = Field(None, description="a disk image on this host; or its path alone")
    url: UrlSource | None = Field(None, description="a disk image to download")
    image: Annotated[ImageSource, _as("name", ImageSource)] | None = Field(None, description="an image of the catalog; or its name alone")
    ami: Annotated[AmiSource, _as("id", AmiSource)] | None = Field(None, description="an AMI by its id (builder ec2)")
    source_ami_filter: SourceAmiFilter | None = Field(None, description="the AMI that a search finds (builder ec2)")
    ssm_parameter: Annotated[SsmParameterSource, _as("ssm_parameter", SsmParameterSource)] | None = Field(
        None, description="the AMI that a parameter of the Systems Manager names (builder ec2)"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(type(self).model_fields)} is wanted, not {' and '.join(given) or 'none'}")
        return self

    @property
    def chosen(self) -> AnySource:
        given: list[AnySource] = [value for name in type(self).model_fields if (value := getattr(self, name)) is not None]
        return given[0]  # _exactly_one


class PostProcessor(Frozen):
    """What happens to the finished image."""

    export: ExportPostProcessor = Field(description="write it to a file")


def _cache(value: object) -> object:
    return {"enabled": value} if isinstance(value, bool) else value


Cache = Annotated[CacheSpec, BeforeValidator(_cache, json_schema_input_type=bool | CacheSpec)]


class GroupOptions(Frozen):
    """Keys beside `uses` and `include`; they hold for each step inside that does not say otherwise."""

    only: Words = Field((), description='run for these images only: names (with * and ?), or "axis=value" of the matrix')
    except_: Words = Field((), alias="except", description="run for all images but these")
    timeout: Duration | None = Field(None, gt=0, description="how long the step may take; left out, as long as it wants")
    retries: int = Field(0, ge=0, le=100, description="how often it is tried again after a failure")
    on_error: OnError | None = Field(None, description="what to do when it fails; left out, what the template says")
    cache: Cache = Field(CacheSpec(), description="false: never use its layer again; {max_age: 1d}: not an older one")


class StepOptions(GroupOptions):
    """Keys that every step may have beside its kind."""

    name: str | None = Field(None, min_length=1, max_length=100, description="how output names it; left out, its kind and number")
    pause_before: Duration = Field(0.0, description="wait this long before it")


class TemplateFile(Frozen):
    """A template file."""

    schema_: Literal[1] = Field(alias="schema", description="version of this language")
    name: str = Field(pattern=NAME, description="name of the image")
    version: str = Field(pattern=VERSION, description="semantic version of the image", examples=["1.4.0"])
    description: str = Field("", description="what the image is, in a sentence")
    labels: Mapping[str, str] = Field(default_factory=dict, description="whatever you want to find it by")
    variables: Mapping[str, VariableSpec] = Field(default_factory=dict, description="values from outside, used as ${{ var.NAME }}")
    matrix: Mapping[str, Any] = Field(default_factory=dict, description="makes one image for each combination of values")
    source: SourceSpec = Field(description="what the image starts from")
    builder: Mapping[str, Any] = Field(default_factory=dict, description="the machine that it is built on")
    communicator: CommunicatorSpec = Field(CommunicatorSpec(), description="how bake reaches that machine")
    provisioners: tuple[Mapping[str, Any], ...] = Field((), description="the steps, in order")
    verify: tuple[VerifySpec, ...] = Field((), description="tests of the finished image; those of bundles run as well")
    on_error: OnError = Field("cleanup", description="what a failed build does with its machine")
    reproducible: bool = Field(False, description="true: seal the image so that building it again gives the same bytes")
    post_processors: tuple[PostProcessor, ...] = Field((), description="what happens to the finished image")


class BundleFile(Frozen):
    """A bundle's provisioner.yaml: steps with parameters and their own tests. test_<name>.py beside it is found by itself."""

    schema_: Literal[1] = Field(alias="schema", description="version of this language")
    name: str = Field(pattern=BUNDLE_NAME, description="the name of its directory")
    version: str = Field("0.0.0", pattern=VERSION, description="semantic version of the bundle")
    description: str = Field("", description="what it does, in a sentence")
    parameters: Mapping[str, ParameterSpec] = Field(default_factory=dict, description="values from `with`, used as ${{ param.NAME }}")
    provisioners: tuple[Mapping[str, Any], ...] = Field(description="the steps, in order; other bundles among them")
    verify: tuple[VerifySpec, ...] = Field((), description="tests of what it did; they get its parameters")


class IncludeFile(Frozen):
    """A file of steps for `include`; it may also be the bare list."""

    parameters: Mapping[str, ParameterSpec] = Field(default_factory=dict, description="values from `with`, used as ${{ param.NAME }}")
    provisioners: tuple[Mapping[str, Any], ...] = Field(description="the steps, in order")


class Matrix(Frozen):
    """Axes with their values, and two keys of its own."""  # matrix.py reads it; schema and reference are made of this

    exclude: tuple[Mapping[str, Any], ...] = Field((), description="combinations to leave out, by some or all of their values")
    include: tuple[Mapping[str, Any], ...] = Field((), description="further combinations, with a value for each axis")
