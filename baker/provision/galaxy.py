"""What `ansible-galaxy install` put into a step's directory: roles and collections, with their versions and digests.

Roles say their version in meta/.galaxy_install_info, collections in MANIFEST.json. Of those from git the commit is what the reference is
now, asked of the repository as soon as they are installed.
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
LEFT_OUT = frozenset({INSTALLED, Path(MANIFEST), Path("FILES.json")})
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
GIT_SECONDS = 60.0


def installed(files: Path, requirements: Path) -> tuple[AnsibleContent, ...]:
    """The roles and collections below `files`, of which `requirements` says where they are from."""
    wanted = [*_wanted(requirements)]
    return (*_roles(files / "roles", wanted), *_collections(files / "collections" / "ansible_collections", wanted))


@cache
def galaxy_server() -> str:
    """The server that ansible-galaxy asks on this host, without a slash at its end. HostError without Ansible."""
    told = run([tool("ansible-config"), "dump"], what="ask Ansible for its server").stdout
    found = re.search(r"^GALAXY_SERVER\([^)]*\) = (\S+)$", told, re.M)
    if found is None:
        raise HostError("ansible-config does not say which server ansible-galaxy asks")
    return found[1].rstrip("/")


def remote_commit(source: str, ref: str) -> str:
    """The commit that a branch or tag (an annotated one: what it is of) of a repository is at; "" where there is none, or no answer."""
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


def _roles(directory: Path, wanted: Sequence[Mapping[str, str]]) -> Iterator[AnsibleContent]:
    import yaml

    for path in sorted(directory.glob("*/")):
        info = path / INSTALLED
        told: Any = yaml.safe_load(info.read_text()) if info.exists() else {}
        asked = next((each for each in wanted if each["kind"] == "role" and each["name"] == path.name), {})
        yield _brought("role", path.name, str((told or {}).get("version") or ""), _digest(path), asked)


def _collections(directory: Path, wanted: Sequence[Mapping[str, str]]) -> Iterator[AnsibleContent]:
    for manifest in sorted(directory.glob(f"*/*/{MANIFEST}")):
        told = json.loads(manifest.read_text())["collection_info"]
        name = f"{told['namespace']}.{told['name']}"
        asked = next((each for each in wanted if each["kind"] == "collection" and each["name"] == name), {})
        asked = asked or next((each for each in wanted if each["kind"] == "collection" and _leads_to(each["source"], told["name"])), {})
        yield _brought("collection", name, str(told["version"]), _digest(manifest.parent), asked)


def _digest(directory: Path) -> str:
    """Of every file's path, content and whether it can be run: other modes, and what the installer writes, are not the same each time."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.relative_to(directory) not in LEFT_OUT]
    return digest_of([[str(path.relative_to(directory)), file_digest(path), bool(path.stat().st_mode & 0o100)] for path in files])


def _brought(kind: str, name: str, version: str, digest: str, asked: Mapping[str, str]) -> AnsibleContent:
    source, ref = asked.get("source", ""), asked.get("ref", "")
    commit = remote_commit(source, ref) if ref else ""
    return AnsibleContent(kind, name, version, f"sha256:{digest}", re.sub(r"//[^/@]*@", "//", source), ref, commit)


def _wanted(requirements: Path) -> Iterator[dict[str, str]]:
    """The entries of a requirements file (ansible-galaxy's "Installing roles and collections"): a list of roles, or two lists.
    `ref` is "" for what is not from git."""
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


def _leads_to(source: str, name: str) -> bool:
    """Whether a repository is named like the collection: requirements name one from git by its address alone."""
    last = source.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return bool(last) and last.rpartition(".")[2] == name
