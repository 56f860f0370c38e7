"""The roles and collections that `ansible-galaxy install` put into a step's directory, with their versions and digests.

ansible-galaxy records a role's version in meta/.galaxy_install_info and a collection's in MANIFEST.json. For content from git, the
commit is the one that the reference points to in the repository right after the installation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from baker.core.digests import digest_of, file_digest
from baker.core.errors import BakeError, HostError
from baker.core.model import AnsibleContent
from baker.core.process import run
from baker.provision.tools import tool

INSTALLED, MANIFEST = Path("meta/.galaxy_install_info"), "MANIFEST.json"
LEFT_OUT = frozenset({INSTALLED, Path(MANIFEST), Path("FILES.json")})  # written by the installer, different in each installation
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
GIT_SECONDS = 60.0


def installed(files: Path, requirements: Path) -> tuple[AnsibleContent, ...]:
    """The roles and collections below `files`, with the sources that the file `requirements` gives for them."""
    entries = [*_requirements(requirements)]
    return (*_roles(files / "roles", entries), *_collections(files / "collections" / "ansible_collections", entries))


@cache
def galaxy_server() -> str:
    """The URL of the Galaxy server that this host's Ansible uses, without a trailing slash. HostError when Ansible is missing."""
    settings = run([tool("ansible-config"), "dump"], what="ansible-config dump").stdout
    found = re.search(r"^GALAXY_SERVER\([^)]*\) = (\S+)$", settings, re.M)
    if found is None:
        raise HostError(
            "ansible-config does not report which server ansible-galaxy uses",
            hint="`ansible-config dump` should have a line GALAXY_SERVER",
            code="host.galaxy-server",
        )
    return found[1].rstrip("/")


def remote_commit(source: str, ref: str) -> str:
    """The commit of a branch or tag of a git repository (of an annotated tag, the commit that it points to).

    `ref` itself when it is a commit already; "" when there is no such reference or the repository does not answer.
    """
    if COMMIT.fullmatch(ref):
        return ref
    argv = ["git", "ls-remote", "--", source.removeprefix("git+"), ref, f"{ref}^{{}}"]
    try:
        lines = run(argv, env={"GIT_TERMINAL_PROMPT": "0"}, timeout=GIT_SECONDS, what="git ls-remote").stdout.splitlines()
    except BakeError:
        return ""
    found = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    names = (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
    return next((found[name] for name in names if name in found), "")


def _roles(directory: Path, requirements: Sequence[Mapping[str, str]]) -> Iterator[AnsibleContent]:
    import yaml

    for path in sorted(directory.glob("*/")):
        install_info = path / INSTALLED
        info: Any = yaml.safe_load(install_info.read_text()) if install_info.exists() else {}
        entry = next((each for each in requirements if each["kind"] == "role" and each["name"] == path.name), {})
        yield _content("role", path.name, str((info or {}).get("version") or ""), _digest(path), entry)


def _collections(directory: Path, requirements: Sequence[Mapping[str, str]]) -> Iterator[AnsibleContent]:
    wanted = [each for each in requirements if each["kind"] == "collection"]
    for manifest in sorted(directory.glob(f"*/*/{MANIFEST}")):
        info = json.loads(manifest.read_text())["collection_info"]
        name = f"{info['namespace']}.{info['name']}"
        entry = next((each for each in wanted if each["name"] == name), {})
        entry = entry or next((each for each in wanted if _is_named(each["source"], info["name"])), {})
        yield _content("collection", name, str(info["version"]), _digest(manifest.parent), entry)


def _digest(directory: Path) -> str:
    """A digest (64 hex digits) of the path, content and executable bit of every file.

    Other mode bits, and the files that the installer writes, differ between installations and are left out.
    """
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.relative_to(directory) not in LEFT_OUT]
    return digest_of([[str(path.relative_to(directory)), file_digest(path), bool(path.stat().st_mode & 0o100)] for path in files])


def _content(kind: str, name: str, version: str, digest: str, requirement: Mapping[str, str]) -> AnsibleContent:
    """The record of one role or collection. A login in the URL of its source is removed."""
    source, ref = requirement.get("source", ""), requirement.get("ref", "")
    commit = remote_commit(source, ref) if ref else ""
    return AnsibleContent(kind, name, version, f"sha256:{digest}", re.sub(r"//[^/@]*@", "//", source), ref, commit)


def _requirements(requirements: Path) -> Iterator[dict[str, str]]:
    """The entries of a requirements file: `kind`, `name`, `source` and `ref`, which is "" for content that is not from git.

    The file is a list of roles, or a mapping with the lists `roles` and `collections` (Ansible Galaxy user guide, "Installing roles
    and collections from the same requirements.yml file").
    """
    import yaml

    found: Any = yaml.safe_load(requirements.read_text()) or {}
    roles, collections = (found, []) if isinstance(found, list) else (found.get("roles") or [], found.get("collections") or [])
    for kind, entries in (("role", roles), ("collection", collections)):
        for entry in entries:
            yield _entry(kind, {"name": entry} if isinstance(entry, str) else entry)


def _entry(kind: str, entry: Mapping[str, Any]) -> dict[str, str]:
    key = "src" if kind == "role" else "source"
    source = str(entry.get(key) or entry.get("name") or "")
    name, version = str(entry.get("name") or ""), str(entry.get("version") or "")
    in_git = "git" in (entry.get("scm"), entry.get("type")) or source.startswith(("git+", "git@")) or source.endswith(".git")
    if kind == "collection" and in_git:
        source = str(entry.get("source") or name)
    if in_git:
        source, _, after = source.partition(",")
        version = version if version and version != "*" else after
    if not name or name == source or "/" in name:
        name = source.rstrip("/").rpartition("/")[2].removesuffix(".git") if in_git else name or source
    return {"kind": kind, "name": name, "source": source, "ref": (version or "HEAD") if in_git else ""}


def _is_named(source: str, name: str) -> bool:
    """Whether the repository `source` is named like the collection `name`: an entry from git often has no name but its URL."""
    last = source.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return bool(last) and last.rpartition(".")[2] == name
