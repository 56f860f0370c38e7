"""The scripts that perform an operation in the guest: POSIX sh, constant except for names and numbers.

They appear in the guest's process list. Whatever may be secret (a step's script, its environment, file content) is sent on stdin.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from baker.core.errors import UsageError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The script's exit code is read from the end markers and not from ssh: ssh's exit code 255 also means "connection lost", and a daemon that
# keeps the step's stdout open would hold the session open for ever. Starting a process costs an emulated guest as much as a thousand lines
# of shell, so builtins are used where they suffice.
_RUN = r"""
umask 077
set -C
d=/run/bake-{token}
[ -w /run ] || d=/dev/shm/bake-{token}
trap 'rm -f "$d" "$d.pid"' EXIT
env= n={env_lines}
while [ $n -gt 0 ]; do
  IFS= read -r line || exit 125
  env="$env$line
"
  n=$((n - 1))
done
head -c {script_size} >"$d" || exit 125
IFS= read -r line || :
[ "$line" = {token} ] || [ "$(wc -c <"$d")" -eq {script_size} ] || exit 125
exec </dev/null
user={user}
found=
while IFS=: read -r name _ _ _ _ home login; do
  if [ "$name" = "$user" ]; then found=1; break; fi
done </etc/passwd
if [ -z "$found" ]; then
  line=$(getent passwd "$user" 2>/dev/null) || {{ echo "there is no user $user in the guest" >&2; exit 125; }}
  IFS=: read -r _ _ _ _ _ home login <<END
$line
END
fi
start=$home
[ -d "$start" ] || start=/
setsid=
for p in /usr/bin/setsid /bin/setsid; do if [ -x $p ]; then setsid=$p; fi; done
unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_AUTH_SOCK SSH_ORIGINAL_COMMAND MAIL XDG_RUNTIME_DIR XDG_SESSION_ID XDG_SESSION_TYPE \
  XDG_SESSION_CLASS DBUS_SESSION_BUS_ADDRESS SUDO_COMMAND SUDO_USER SUDO_UID SUDO_GID OLDPWD
export PATH={path} HOME="$home" USER="$user" LOGNAME="$user" SHELL="${{login:-/bin/sh}}" LANG=C.UTF-8
echo {token}-start >&2
if [ "$user" = root ]; then
  set -- "$d" "$setsid" {cwd}  # the environment may have names like those here
  (umask 022; eval "$env"; cd -- "$3" && exec ${{2:+"$2"}} {shell} -e "$1") &
else
  chown "$user" "$d"
  if command -v runuser >/dev/null 2>&1; then set -- runuser -u "$user" --
  else set -- setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups --; fi
  BAKE_ENV=$env $setsid "$@" /bin/sh -c \
    'umask 022; set -- "$@" "$BAKE_ENV"; unset BAKE_ENV; eval "$4"; cd -- "$3" && exec "$2" -e "$1"' bake "$d" {shell} {cwd} &
fi
echo $! >"$d.pid"
wait $!
code=$?
echo {token}-end $code
echo {token}-end $code >&2
trap - EXIT
rm -f "$d" "$d.pid" >/dev/null 2>&1 &
exit $code
"""

_KILL = r"""
for d in /run/bake-{token} /dev/shm/bake-{token}; do
  [ -r "$d.pid" ] && read -r pid <"$d.pid" || continue
  for signal in TERM KILL; do
    kill -s $signal -- "-$pid" 2>/dev/null || kill -s $signal "$pid" 2>/dev/null || break
    n=0
    while [ $n -lt 50 ] && kill -s 0 -- "-$pid" 2>/dev/null; do n=$((n + 1)); sleep 0.1; done
  done
  rm -f "$d" "$d.pid"
done
"""

_PUT = r"""
set -e
umask 022
[ -d {parent} ] || mkdir -p -- {parent}
if [ -d {destination} ]; then echo {destination} is a directory in the guest >&2; exit 1; fi
umask 077
set -C
t={temporary}
trap '[ ! -e "$t" ] || rm -f "$t"' EXIT
head -c {size} >"$t"
IFS= read -r line || :
[ "$line" = {token} ] || [ "$(wc -c <"$t")" -eq {size} ] || {{ echo the transfer was cut short >&2; exit 1; }}
if [ {owner}:{group} != root:root ] || [ -g {parent} ]; then chown {owner}:{group} "$t"; fi
chmod {mode:04o} "$t"
mv -fT -- "$t" {destination}
"""

# --keep-directory-symlink: /bin and /lib are symbolic links on merged-/usr systems, which a directory of that name must not replace.
_PUT_TREE = r"""
set -e
umask 022
mkdir -p -- {destination}
exec tar -x -p -f - -C {destination} --keep-directory-symlink
"""


def environment_file(env: Mapping[str, str]) -> bytes:
    """Shell lines that export `env`. UsageError for a name that a shell does not allow, and for a value with a NUL byte."""
    lines = []
    for name, value in env.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            hint = "use letters, digits and _, not starting with a digit"
            raise UsageError(f"{name!r} is not a name for an environment variable", hint=hint, code="machine.bad-variable-name")
        if "\0" in value:
            raise UsageError(f"the value of the environment variable {name} has a NUL byte", code="machine.bad-variable-value")
        lines.append(f"export {name}={shlex.quote(value)}\n")
    return "".join(lines).encode()


def run_script(token: str, *, env_lines: int, script_size: int, user: str, shell: str, cwd: str | None) -> str:
    """A script for root that runs another script as `user`.

    Its stdin is `env_lines` lines that export the environment, `script_size` bytes of script, and TOKEN. It writes TOKEN-start to stderr
    before the script starts, and TOKEN-end CODE to both streams when the script has ended with exit code CODE.
    """
    return _RUN.format(
        token=token,
        env_lines=env_lines,
        script_size=script_size,
        user=shlex.quote(user),
        shell=shlex.quote(shell),
        path=PATH,
        cwd='"$start"' if cwd is None else shlex.quote(cwd),
    )


def kill_script(token: str) -> str:
    """A script that ends the process group of the run `token`: SIGTERM, then SIGKILL after about 5 seconds."""
    return _KILL.format(token=token)


def put_script(token: str, destination: str, *, size: int, mode: int, owner: str, group: str) -> str:
    """A script that writes `size` bytes of stdin to `destination` by a rename, so that no reader sees an incomplete file.

    TOKEN follows the content on stdin: without it the transfer was cut short, unless the file has the right size.
    """
    return _PUT.format(
        token=token,
        temporary=shlex.quote(f"{destination}.{token}"),
        parent=shlex.quote(destination.rpartition("/")[0] or "/"),
        destination=shlex.quote(destination),
        size=size,
        mode=mode,
        owner=shlex.quote(owner),
        group=shlex.quote(group),
    )


def put_tree_script(destination: str) -> str:
    """A script that unpacks the tar on stdin below `destination`."""
    return _PUT_TREE.format(destination=shlex.quote(destination))


def get_script(source: str) -> str:
    """A script that writes the content of the file `source` to stdout. It fails for a directory."""
    return f"if [ -d {shlex.quote(source)} ]; then echo it is a directory >&2; exit 1; fi; exec cat -- {shlex.quote(source)}"


def command_line(script: str, *, login: str, root: bool = True) -> str:
    """The remote command for ssh: runs `script` in sh, as root if `root` (with sudo unless the user `login` is root)."""
    prefix = "sudo -n -- " if root and login != "root" else ""
    return f"exec {prefix}/bin/sh -c {shlex.quote(script)}"
