"""The provisioner kind `file`: write files, directory trees, literal text and rendered templates into the guest.

    - file: {source: files/site/, destination: /var/www/html, owner: www-data}
    - file: {template: files/motd.j2, destination: /etc/motd, vars: {team: shop}}
    - file: {content: "hello\\n", destination: /etc/hello, mode: '0600'}

As with rsync, a source directory with a trailing slash means its content; without the slash it means the directory itself. A
destination with a trailing slash is the directory that receives the files.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, model_validator

from baker.core.errors import BuildError
from baker.provision.base import Operation, Put, PutTree, StepConfig, StepContext
from baker.provision.fields import Account, GuestPath, Mode, Texts

LARGEST_IN_MEMORY = 1 << 20  # bytes; a larger file becomes a PutTree instead of a Put


class FileConfig(StepConfig):
    """Files, directory trees, literal text or a rendered template that are written into the guest."""

    source: Texts = Field((), description="Files or directories on this host. With a trailing slash: a directory's content.")
    content: str | None = Field(None, description="The text to write.")
    template: Path | None = Field(None, description="A Jinja2 template on this host. An unknown name in it is an error.")
    vars: dict[str, Any] = Field(default_factory=dict, description="What the template sees.")
    destination: GuestPath = Field(description="Where to in the guest. With a trailing slash: into that directory.")
    mode: Mode | None = Field(None, description="Mode of the files. Default: '0644', or '0755' for what is executable here.")
    directory_mode: Mode | None = Field(None, description="Mode of the directories. Default: '0755'.")
    owner: Account = Field("root", description="User, by name or number.")
    group: Account | None = Field(None, description="Group, by name or number. Default: the login group of `owner`.")
    exclude: Texts = Field((), description="Names or patterns (*.pyc, .git) of a tree to leave out.")

    @model_validator(mode="after")
    def _one_of(self) -> FileConfig:
        given = [name for name in ("source", "content", "template") if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            raise ValueError("give exactly one of source, content and template" + (f", not {' and '.join(given)}" if given else ""))
        if self.vars and self.template is None:
            raise ValueError("vars is for a template only")
        if self.exclude and not self.source:
            raise ValueError("exclude is for a source only")
        if self.content is not None and self.destination.endswith("/"):
            raise ValueError("the destination of a content is a file: leave out the trailing /")
        if len(self.source) > 1 and not self.destination.endswith("/"):
            raise ValueError("the destination of several sources is a directory: end it with /")
        return self


class File:
    """Write files into the guest."""

    name = "file"
    Config: type[BaseModel] = FileConfig

    def inputs(self, config: FileConfig, base_dir: Path) -> Iterable[Path]:
        if config.template is not None:
            return [base_dir / config.template]
        paths = [base_dir / source for source in config.source]
        return [found for path in paths for found in _included(path, config.exclude)]

    def operations(self, config: FileConfig, context: StepContext) -> Iterator[Operation]:
        if config.content is not None:
            yield _put(config, config.content.encode(), config.destination, 0o644)
        elif config.template is not None:
            text = render(context.base_dir / config.template, config.vars)
            yield _put(config, text.encode(), _target(config.destination, config.template.name.removesuffix(".j2")), 0o644)
        for source in config.source:
            yield _copy(config, context.base_dir / source, source)


def _included(path: Path, exclude: tuple[str, ...]) -> Iterator[Path]:
    """The inputs of one source: `path` itself, or with `exclude` each file and link below it that no pattern matches."""
    if not exclude or not path.is_dir():
        yield path
        return
    for found in walk(path, exclude):
        if found.is_symlink() or not found.is_dir():
            yield found


def walk(root: Path, exclude: tuple[str, ...]) -> Iterator[Path]:
    """Every path below `root` in a fixed order, parents first. Paths that match `exclude` are left out, with everything below them.

    A pattern that contains a slash is matched against the path relative to `root`, any other pattern against each name.
    """
    for path in sorted(root.iterdir()):
        relative = path.relative_to(root).as_posix()
        yield from _walk(path, relative, root, exclude)


def _walk(path: Path, relative: str, root: Path, exclude: tuple[str, ...]) -> Iterator[Path]:
    if any(fnmatch.fnmatchcase(relative if "/" in pattern.strip("/") else path.name, pattern.strip("/")) for pattern in exclude):
        return
    yield path
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(child, child.relative_to(root).as_posix(), root, exclude)


def _copy(config: FileConfig, path: Path, source: str) -> Operation:
    if path.is_dir():
        destination = config.destination if source.endswith("/") else str(PurePosixPath(config.destination) / path.name)
        return _tree(config, path, destination)
    if not path.is_file():
        if path.exists():
            raise BuildError(f"{path} is not a file or directory", code="step.file-type")
        raise BuildError(f"the source {path} does not exist", code="step.file-missing")
    target = PurePosixPath(_target(config.destination, path.name))
    if path.stat().st_size > LARGEST_IN_MEMORY:
        return _tree(config, path, str(target.parent), rename=target.name)
    return _put(config, path.read_bytes(), str(target), plain_mode(path))


def _tree(config: FileConfig, source: Path, destination: str, rename: str = "") -> PutTree:
    return PutTree(
        source=source,
        destination=destination,
        rename=rename,
        mode=config.mode,
        directory_mode=config.directory_mode,
        owner=config.owner,
        group=login_group(config),
        exclude=config.exclude,
    )


def _put(config: FileConfig, data: bytes, destination: str, mode: int) -> Put:
    return Put(data, destination, mode=config.mode if config.mode is not None else mode, owner=config.owner, group=login_group(config))


def login_group(config: FileConfig) -> str:
    """The group of the step's files: the configured one, "root" for root, else "" (the guest looks up the owner's login group)."""
    return config.group or ("root" if config.owner in ("root", "0") else "")


def _target(destination: str, name: str) -> str:
    return destination + name if destination.endswith("/") else destination


def plain_mode(path: Path) -> int:
    """The mode of a file that is given none: 0755 or 0644 as git records it, without group and others if `path` is private."""
    mode = path.lstat().st_mode
    usual = 0o755 if mode & 0o100 or path.is_dir() else 0o644
    return usual if mode & 0o077 else usual & 0o700


def render(template: Path, variables: dict[str, Any]) -> str:
    """Render a Jinja2 template file. BuildError with file and line for a mistake in it or a name that is not in `variables`."""
    from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def load(name: str) -> tuple[str, str, None] | None:
        # This file only: a file that it included would not be one of the step's inputs.
        return (template.read_text(), str(template), None) if name == template.name else None

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(load), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    try:
        return environment.get_template(template.name).render(variables)
    except TemplateSyntaxError as error:
        raise BuildError(f"{error.filename or template}:{error.lineno}: {error.message}", code="step.template-syntax") from error
    except TemplateNotFound as error:
        raise BuildError(
            f"{template} includes {error.name}", hint="a template cannot include or import other files", code="step.template-include"
        ) from error
    except OSError as error:
        raise BuildError(f"cannot read {template}: {error}", code="step.file-unreadable") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"cannot read {template}: {error}", hint="save it as UTF-8", code="step.file-encoding") from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise BuildError(
            f"{template}:{_line(error, template)}: {error}",
            hint="a template may use only the names in `vars`",
            code="step.template-render",
        ) from error


def _line(error: BaseException, template: Path) -> int:
    """The line of `template` where rendering failed, 0 if unknown. Jinja2 rewrites tracebacks to name template lines."""
    found = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(template):
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
