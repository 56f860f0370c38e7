"""What two trees differ in, as a person means it."""

from __future__ import annotations

from dataclasses import replace

from baker.core.model import FileEntry, Package
from baker.explain.diff import Tree, compare, to_json

FILE, LINK = 0o100644, 0o120777
TEXTS = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n",
    "/etc/shadow": b"root:*:1::::::\nann:$y$j9T$OLDHASH:1::::::\n",
    "/etc/group": b"root:x:0:\nwww:x:33:\n",
    "/etc/motd": b"hello\nworld\n",
    "/usr/bin/tool": b"\x7fELF\0one",
}


def tree(title: str, texts: dict[str, bytes], *more: FileEntry, packages: dict[str, str] | None = None) -> Tree:
    files = [FileEntry(path, FILE, 0, 0, len(data), data.hex()) for path, data in texts.items()]
    return Tree(title, [*files, *more], [Package(name, version, "amd64") for name, version in (packages or {}).items()], texts.get)


def test_packages_services_users_and_sizes() -> None:
    unit = FileEntry("/usr/lib/systemd/system/nginx.service", FILE, 0, 0, 9, "aa")
    wants = FileEntry("/etc/systemd/system/multi-user.target.wants/nginx.service", LINK, 0, 0, 9, target=unit.path)
    after = TEXTS | {
        "/etc/passwd": TEXTS["/etc/passwd"] + b"www:x:33:33::/var/www:/bin/false\n",
        "/etc/shadow": TEXTS["/etc/shadow"].replace(b"OLDHASH", b"NEWHASH"),
        "/etc/group": b"root:x:0:\nwww:x:33:ann\n",
        "/etc/shadow-": b"ann:$y$j9T$OLDHASH:1::::::\n",
    }
    found = compare(
        tree("old", TEXTS | {"/etc/shadow-": b"ann:$y$j9T$OLDERHASH:1::::::\n"}, unit, packages={"nginx": "1.26", "gone": "1"}),
        tree("new", after, unit, wants, packages={"nginx": "1.28", "new": "2"}),
    )
    assert [(each.name, each.before, each.after) for each in found.packages] == [
        ("gone", "1", ""),
        ("new", "", "2"),
        ("nginx", "1.26", "1.28"),
    ]
    assert [(each.name, each.before, each.after) for each in found.services] == [("nginx.service", "installed", "enabled")]
    assert [each.name for each in found.users] == ["ann", "www"]
    assert found.users[0].after.endswith("password changed")
    assert [(each.name, each.after) for each in found.groups] == [("www", "gid 33: ann")]
    assert "HASH" not in str(to_json(found))
    assert dict(found.sizes)["/etc"] > 0


def test_files_with_their_lines_and_without_their_times() -> None:
    old, new = tree("old", TEXTS), tree("new", TEXTS | {"/etc/motd": b"hello\nthere\n", "/usr/bin/tool": b"\x7fELF\0two"})
    moved = [replace(each, mtime=7, uid=5 if each.path == "/etc/group" else 0) for each in new.entries]
    found = {each.path: each for each in compare(old, replace(new, entries=moved)).files}
    assert set(found) == {"/etc/motd", "/usr/bin/tool", "/etc/group"}
    assert found["/etc/motd"].diff[-2:] == ("-world", "+there")
    assert found["/usr/bin/tool"].diff == ()
    assert "owner" in found["/etc/group"].what
    assert len(compare(old, replace(new, entries=moved), times=True).files) == len(TEXTS)


def test_equal_trees_are_the_same() -> None:
    assert compare(tree("old", TEXTS), tree("new", TEXTS)).same
