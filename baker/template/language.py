"""Models of the YAML files: templates, included files and bundles. The JSON Schema and the reference are generated from them.

Provisioner kinds and builders have their own models, in baker/provision and builders.py.
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
    """A declared variable. Without a default it needs a value from --var NAME=VALUE, --var-file, or BAKE_VAR_NAME."""

    type: Type | None = Field(None, description="type of the value; default: the type of `default`, else string")
    default: Any = Field(None, description="value when none is given")
    description: str = Field("", description="purpose of the variable")
    sensitive: bool = Field(False, description="true: the value is never shown, logged or recorded")
    allowed: tuple[Any, ...] | None = Field(None, min_length=1, description="list of the allowed values")
    pattern: str | None = Field(None, description="regular expression that the whole string must match")

    @property
    def optional(self) -> bool:
        return "default" in self.model_fields_set


class ParameterSpec(VariableSpec):
    """A declared parameter of a bundle. Without a default it needs a value in `with`."""

    required: bool = Field(True, description="false: the parameter may be left out; it is null then")

    @property
    def optional(self) -> bool:
        return super().optional or not self.required


def _as(key: str, model: Any) -> Any:
    """Accept a string as the short form of a source: the value of its main key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=str | model)


class SourceSpec(Frozen):
    """The source that the image starts from. Exactly one of the keys must be given."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    debootstrap: Annotated[DebootstrapSource, _as("suite", DebootstrapSource)] | None = Field(
        None, description="Debian installed from packages: a mapping, or the suite"
    )
    file: Annotated[FileSource, _as("path", FileSource)] | None = Field(None, description="disk image on this host: a mapping, or its path")
    url: UrlSource | None = Field(None, description="disk image to download")
    image: Annotated[ImageSource, _as("name", ImageSource)] | None = Field(None, description="image of the catalog: a mapping, or its name")
    ami: Annotated[AmiSource, _as("id", AmiSource)] | None = Field(None, description="AMI by its id (builder ec2)")
    source_ami_filter: SourceAmiFilter | None = Field(None, description="AMI that a search finds (builder ec2)")
    ssm_parameter: Annotated[SsmParameterSource, _as("ssm_parameter", SsmParameterSource)] | None = Field(
        None, description="AMI that a Systems Manager parameter names (builder ec2)"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(type(self).model_fields)} must be given, not {' and '.join(given) or 'none'}")
        return self

    @property
    def chosen(self) -> AnySource:
        given: list[AnySource] = [value for name in type(self).model_fields if (value := getattr(self, name)) is not None]
        return given[0]  # _exactly_one


class PostProcessor(Frozen):
    """What to do with the finished image."""

    export: ExportPostProcessor = Field(description="write the image to a file")


def _cache(value: object) -> object:
    return {"enabled": value} if isinstance(value, bool) else value


Cache = Annotated[CacheSpec, BeforeValidator(_cache, json_schema_input_type=bool | CacheSpec)]


class GroupOptions(Frozen):
    """Keys beside `uses` and `include`. They apply to each step inside that does not override them."""

    only: Words = Field((), description='run for these images only: names with * and ?, or "axis=value" of the matrix')
    except_: Words = Field((), alias="except", description="run for all images except these")
    timeout: Duration | None = Field(None, gt=0, description="timeout of the step; default: no limit")
    retries: int = Field(0, ge=0, le=100, description="number of further attempts after a failure")
    on_error: OnError | None = Field(None, description="what to do when the step fails; default: on_error of the template")
    cache: Cache = Field(CacheSpec(), description="false: run the step in every build; {max_age: 1d}: use no older layer")


class StepOptions(GroupOptions):
    """Keys that a step may have beside its kind."""

    name: str | None = Field(None, min_length=1, max_length=100, description="name of the step in output; default: its kind and number")
    pause_before: Duration = Field(0.0, description="time to wait before the step")


class TemplateFile(Frozen):
    """A template file."""

    schema_: Literal[1] = Field(alias="schema", description="version of this language")
    name: str = Field(pattern=NAME, description="name of the image")
    version: str = Field(pattern=VERSION, description="semantic version of the image", examples=["1.4.0"])
    description: str = Field("", description="description of the image, in a sentence")
    labels: Mapping[str, str] = Field(default_factory=dict, description="labels to find the image by")
    variables: Mapping[str, VariableSpec] = Field(
        default_factory=dict, description="declarations of values from outside, used as ${{ var.NAME }}"
    )
    matrix: Mapping[str, Any] = Field(default_factory=dict, description="axes with values; each combination makes an image")
    source: SourceSpec = Field(description="source that the image starts from")
    builder: Mapping[str, Any] = Field(default_factory=dict, description="machine that the image is built on")
    communicator: CommunicatorSpec = Field(CommunicatorSpec(), description="how bake connects to that machine")
    provisioners: tuple[Mapping[str, Any], ...] = Field((), description="steps, in order")
    verify: tuple[VerifySpec, ...] = Field((), description="tests of the finished image; the tests of bundles run, too")
    on_error: OnError = Field("cleanup", description="what to do with the machine of a failed build")
    reproducible: bool = Field(False, description="true: seal the image so that a rebuild gives the same bytes")
    post_processors: tuple[PostProcessor, ...] = Field((), description="what to do with the finished image")


class BundleFile(Frozen):
    """A bundle's provisioner.yaml: steps with parameters and tests. A file test_<name>.py beside it runs without being named."""

    schema_: Literal[1] = Field(alias="schema", description="version of this language")
    name: str = Field(pattern=BUNDLE_NAME, description="name of the bundle: the name of its directory")
    version: str = Field("0.0.0", pattern=VERSION, description="semantic version of the bundle")
    description: str = Field("", description="description of the bundle, in a sentence")
    parameters: Mapping[str, ParameterSpec] = Field(
        default_factory=dict, description="declarations of values from `with`, used as ${{ param.NAME }}"
    )
    provisioners: tuple[Mapping[str, Any], ...] = Field(description="steps, in order; they may use other bundles")
    verify: tuple[VerifySpec, ...] = Field((), description="tests of the bundle; they get its parameters")


class IncludeFile(Frozen):
    """A file of steps for `include`. In place of this mapping it may be the list of steps."""

    parameters: Mapping[str, ParameterSpec] = Field(
        default_factory=dict, description="declarations of values from `with`, used as ${{ param.NAME }}"
    )
    provisioners: tuple[Mapping[str, Any], ...] = Field(description="steps, in order")


class Matrix(Frozen):
    """Axes with their values, and two keys that change the combinations."""  # for the schema and the reference; matrix.py reads it

    exclude: tuple[Mapping[str, Any], ...] = Field((), description="combinations to leave out, given by some or all of their values")
    include: tuple[Mapping[str, Any], ...] = Field((), description="additional combinations, with a value for each axis")
