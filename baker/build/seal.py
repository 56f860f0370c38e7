"""Seals a machine just before it shuts down: named rules remove everything that must not be in an image.

All rules run as one script over the open connection. Services that would write during the shutdown (a random seed, login records, logs)
are stopped first, and tmpfs is mounted over the directories that services write to while they stop. So the disk stays as the rules
left it. docs/seal.md lists the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from baker.core.errors import BuildError
from baker.core.events import Reporter
from baker.core.model import Identity
from baker.machines.ssh.communicator import Communicator, Disconnected, GuestTimeout

TIMEOUT = 300.0  # seconds; discarding the free blocks of a large disk takes long


@dataclass(frozen=True)
class Rule:
    """A kind of data to remove from the image. `script` is POSIX sh, and skips files that the guest does not have."""

    name: str
    removes: str  # for documentation
    reason: str
    script: str


@dataclass(frozen=True)
class SealReport:
    """Name of a rule -> its actions: "removed /path", "emptied /path", ... A rule that found nothing has ()."""

    actions: dict[str, tuple[str, ...]]


# `say` reports; `drop` removes; `inside` removes the content of a directory; `blank` empties regular files; `found ACTION` applies an
# action to the paths on stdin; `stop` stops services. Paths to remove are only collected, in lists in memory, and the rule `removal`
# removes them all at once: on an emulated machine a process costs as much as a whole rule. The lists: `gone`, `blank`, `waste` (the
# paths of both, to overwrite before), `directory` (to remove if it is empty then).
FUNCTIONS = r"""
lists=/run/bake-seal
[ ! -e "$lists" ] || rm -rf "$lists"
mkdir -m 700 "$lists"
for list in gone blank waste directory; do : >"$lists/$list"; done
say() { printf 'seal\t%s\t%s %s\n' "$rule" "$1" "$2"; }
note() { printf '%s\0' "$2" >>"$lists/$1"; }
drop() { for p; do if [ -e "$p" ] || [ -L "$p" ]; then note gone "$p"; note waste "$p"; say removed "$p"; fi; done; }
blank() { for p; do if [ -f "$p" ] && [ ! -L "$p" ] && [ -s "$p" ]; then note blank "$p"; note waste "$p"; say emptied "$p"; fi; done; }
inside() {
  for d; do
    if [ ! -d "$d" ] || [ -L "$d" ]; then continue; fi
    some=
    for e in "$d"/* "$d"/.[!.]* "$d"/..?*; do
      if [ -e "$e" ] || [ -L "$e" ]; then note gone "$e"; note waste "$e"; some=1; fi
    done
    [ -z "$some" ] || say emptied "$d"
  done
}
found() { while IFS= read -r path; do "$1" "$path"; done; }
stop() {
  if [ -d /run/systemd/system ]; then
    for state in $(systemctl is-active "$@" 2>/dev/null || true); do
      u=$1
      shift
      case "$state" in active | reloading) set -- "$@" "$u" ;; esac
    done
    systemctl stop "$@" '*.timer' 2>/dev/null || [ $# = 0 ] || systemctl stop "$@" 2>/dev/null
    for u; do say stopped "$u"; done
  elif command -v rc-service >/dev/null; then
    for u; do if rc-service -e "${u%.service}" && rc-service "${u%.service}" stop >/dev/null 2>&1; then say stopped "$u"; fi; done
  fi
}
homes=/root
while IFS=: read -r _ _ uid _ _ home _; do
  case "$uid" in '' | *[!0-9]*) continue ;; esac
  if [ "$uid" = 0 ] || { [ "$uid" -ge 1000 ] && [ "$uid" -lt 65534 ]; }; then
    case "$home" in / | /root | '') ;; *) homes="$homes
$home" ;; esac
  fi
done </etc/passwd
in_homes() { printf '%s\n' "$homes" | while IFS= read -r home; do for n; do drop "$home"/$n; done; done; }
"""

SEAL_RULES: tuple[Rule, ...] = (
    Rule(
        "services",
        "running timers, cron jobs, and services that write to the disk when they stop; the times when timers last ran",
        "a job that starts, or a service that stops, would write to the disk after it was cleaned: a random seed, a login record, a log",
        """
        stop cron.service crond.service atd.service anacron.service unattended-upgrades.service \\
          systemd-random-seed.service seedrng.service urandom.service \\
          systemd-update-utmp.service wtmpdb-update-boot.service rsyslog.service syslog.service auditd.service
        inside /var/lib/systemd/timers
        drop /var/lib/logrotate/status /var/lib/logrotate.status
        """,
    ),
    Rule(
        "build-key",
        "the build's SSH key in every authorized_keys; a file and a directory that have nothing else",
        "whoever baked the image must not be able to log in to machines started from it",
        r"""
        { printf '%s\n' "$homes" | while read -r home; do echo "$home/.ssh/authorized_keys"; echo "$home/.ssh/authorized_keys2"; done
          if [ -d /etc/ssh/authorized_keys.d ]; then find /etc/ssh/authorized_keys.d -type f; fi; } | while read -r f; do
          [ -f "$f" ] || continue
          kept= ours=
          while IFS= read -r line || [ -n "$line" ]; do
            case "$line" in *"$BAKE_KEY"*) ours=1 ;; *) kept="$kept$line
" ;; esac
          done <"$f"
          [ -n "$ours" ] || continue
          if [ -n "$kept" ]; then printf '%s' "$kept" >"$f"; say cleaned "$f"
          else drop "$f"; case "${f%/*}" in */.ssh) note directory "${f%/*}" ;; esac; fi
        done
        """,
    ),
    Rule(
        "ssh-host-keys",
        "/etc/ssh/ssh_host_*_key and .pub",
        "two machines with one host key can be mistaken for each other",
        "drop /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub",
    ),
    Rule(
        "machine-id",
        "the content of /etc/machine-id; D-Bus's copy unless it is a link; the Docker engine's id",
        "DHCP, journals and clusters treat machines with the same id as one machine. The file is left empty, not with the word "
        "`uninitialized`: that would make the next boot a first boot that resets which services are enabled",
        """
        blank /etc/machine-id
        [ -L /var/lib/dbus/machine-id ] || drop /var/lib/dbus/machine-id
        drop /var/lib/docker/engine-id /etc/docker/key.json
        """,
    ),
    Rule(
        "random-seed",
        "saved random seeds of systemd, the boot loader, SeedRNG and older init scripts",
        "machines that start from the same seed may generate the same keys. The service is stopped before, or it would save a new seed",
        """
        drop /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed /var/lib/misc/random-seed
        inside /var/lib/seedrng
        drop /boot/efi/loader/random-seed /boot/loader/random-seed /efi/loader/random-seed
        """,
    ),
    Rule(
        "credential-secret",
        "/var/lib/systemd/credential.secret",
        "systemd encrypts a machine's credentials with it, and each machine generates its own",
        "drop /var/lib/systemd/credential.secret",
    ),
    Rule(
        "cloud-init",
        "cloud-init's instance data, seed, logs, semaphores and the network configuration it wrote; ec2-guest's instance id",
        "cloud-init must treat the next boot as a new instance, and must have no data of the build's instance",
        """
        if command -v cloud-init >/dev/null; then cloud-init clean --logs >/dev/null 2>&1 || true; fi
        inside /var/lib/cloud /var/lib/ec2-guest
        drop /var/log/cloud-init.log /var/log/cloud-init-output.log /etc/netplan/50-cloud-init.yaml
        drop /etc/network/interfaces.d/50-cloud-init /etc/NetworkManager/system-connections/cloud-init-*.nmconnection
        """,
    ),
    Rule(
        "dhcp-leases",
        "leases and client ids of dhclient, dhcpcd, systemd-networkd and NetworkManager",
        "a lease is an address that belongs to the build machine",
        """
        inside /var/lib/dhcp /var/lib/dhclient /var/lib/systemd/network
        drop /var/lib/dhcpcd/*.lease* /var/lib/dhcpcd/duid /var/lib/dhcpcd/secret /var/db/dhcpcd/*.lease /etc/dhcpcd.duid
        drop /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/timestamps /var/lib/NetworkManager/seen-bssids
        """,
    ),
    Rule(
        "networkmanager-secret",
        "/var/lib/NetworkManager/secret_key",
        "NetworkManager derives stable addresses and ids from it, and each machine generates its own",
        "drop /var/lib/NetworkManager/secret_key",
    ),
    Rule(
        "persistent-net",
        "udev rules that tie network names to hardware addresses",
        "the next machine's network cards have other addresses, so its network would not start",
        "drop /etc/udev/rules.d/70-persistent-net.rules /etc/udev/rules.d/75-persistent-net-generator.rules",
    ),
    Rule(
        "resolv-conf",
        "/etc/resolv.conf when it is a file that names the build network's name server",
        "10.0.2.3 exists in the build's user-mode network only; DHCP in the next network writes the file again",
        r"""
        if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ] && grep -q '^nameserver 10\.0\.2\.3$' /etc/resolv.conf; then
          blank /etc/resolv.conf
        fi
        """,
    ),
    Rule(
        "package-lists",
        "package lists, downloaded packages and caches of apt, dnf and apk",
        "they are large, stale the next day, and different in every build",
        """
        for d in /var/lib/apt/lists /var/cache/apt/archives; do
          some=
          for f in "$d"/* "$d"/partial/*; do
            if [ -f "$f" ]; then note gone "$f"; [ "$f" = "$d/lock" ] || some=1; fi
          done
          [ -z "$some" ] || say emptied "$d"
        done
        inside /var/lib/apt/lists/auxfiles /var/cache/dnf /var/cache/libdnf5 /var/cache/yum /var/cache/apk
        drop /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/lib/apt/periodic/*
        """,
    ),
    Rule("ldconfig-cache", "/var/cache/ldconfig/aux-cache", "it has inode numbers and times, so it differs in every build",
         "drop /var/cache/ldconfig/aux-cache"),
    Rule(
        "histories",
        "shell and editor histories, hosts that were connected to (known_hosts, wget's list)",
        "they show what was typed in the build, sometimes with passwords",
"""
        in_homes '.*_history' .history .lesshst .viminfo .wget-hsts .local/share/nano/search_history
        in_homes .ssh/known_hosts .ssh/known_hosts.old
        """,
    ),
    Rule("ansible-temp", "~/.ansible of every user", "they are temporary files of Ansible", "in_homes .ansible"),
    Rule("mail", "local mail", "cron and installers send mail about the build to root", "inside /var/mail /var/spool/mail"),
    Rule(
        "crash-dumps",
        "core dumps and crash reports",
        "the memory of a process of the build may have secrets",
        "inside /var/crash /var/lib/systemd/coredump /var/lib/systemd/pstore",
    ),
    Rule(
        "backups",
        "backups of account files (/etc/shadow-, ...) and of the package database",
        "they may have a password hash that was removed from the image",
        """
        for n in passwd shadow group gshadow subuid subgid; do drop "/etc/$n-"; done
        inside /var/backups
        """,
    ),
    Rule("temporary-files", "everything in /tmp and /var/tmp", "only the build needs it", "inside /tmp /var/tmp"),
    Rule(
        "logins",
        "wtmp, btmp, lastlog, faillog and their database successors",
        "they record the logins of the build. The files of the old kind stay, empty, because not every system creates them again",
        """
        blank /var/log/wtmp /var/log/btmp /var/log/lastlog /var/log/faillog /var/log/tallylog
        drop /var/lib/wtmpdb/wtmp.db* /var/log/wtmp.db* /var/lib/lastlog/lastlog2.db*
        """,
    ),
    Rule(
        "logs",
        "journals, rotated logs, and the content of every other file in /var/log, which stays with its owner and mode",
        "they describe the build machine, not the machines that start from the image; services that cannot create their log file need it. "
        "journald stops writing to the disk, and logs of services that stop are kept in memory",
        r"""
        journalctl --relinquish-var >/dev/null 2>&1 || true
        inside /var/log/journal
        find /var/log -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.zst' -o -name '*.old' -o -name '*.[0-9]' \
          -o -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' \) | found drop
        find /var/log -xdev -type f -size +0 | found blank
        """,
    ),
    Rule(
        "removal",
        "nothing more: everything that the rules above name is overwritten with zeros and removed",
        "free space is discarded in whole clusters of the disk image, so the content of small files would stay in the others",
        r"""
        cd "$lists"
        if [ -s waste ] && command -v shred >/dev/null; then
          xargs -0 sh -c 'exec find "$@" -xdev -type f -links 1 -size +0 -size -32768k -exec shred -f -n 0 -z -- {} +' sh <waste \
            2>/dev/null || true
        fi
        [ ! -s gone ] || xargs -0 rm -rf -- <gone
        [ ! -s blank ] || xargs -0 sh -c 'for f; do if [ -f "$f" ]; then : >"$f"; fi; done' sh <blank
        [ ! -s directory ] || xargs -0 rmdir -- <directory 2>/dev/null || true
        cd /
        """,
    ),
    Rule(
        "lid",
        "nothing; tmpfs is mounted over directories that services write to while they stop",
        "writes during the shutdown must not reach the disk",
        """
        set --
        for d in /var/log /var/tmp /var/lib/dhcp /var/lib/systemd/timers /var/lib/wtmpdb /var/lib/lastlog; do
          if [ -d "$d" ] && [ ! -L "$d" ]; then set -- "$@" "$d"; fi
        done
        if [ $# -gt 0 ]; then
          stat -c 'tmpfs %n tmpfs mode=%a,uid=%u,gid=%g,size=16m 0 0' "$@" >"$lists/lid"
          mount -a -T "$lists/lid" 2>/dev/null || while read -r _ d _ options _; do
            mount -t tmpfs -o "$options" tmpfs "$d" 2>/dev/null || true
          done <"$lists/lid"
          while read -r _ d kind _; do
            case "$kind $* " in "tmpfs $d "* | "tmpfs "*" $d "*) say covered "$d" ;; esac
          done </proc/mounts
        fi
        """,
    ),
    Rule(
        "free-space",
        "the blocks of deleted files",
        "deleted data must not be readable in the image's free space, and the image becomes smaller. Files that the rules above remove "
        "were overwritten with zeros before",
        r"""
        sync
        if command -v fstrim >/dev/null; then
          seen=' '
          while read -r device d kind _; do
            case "$device $kind" in
              /dev/*\ ext[234] | /dev/*\ xfs | /dev/*\ btrfs | /dev/*\ f2fs | /dev/*\ vfat) ;;
              *) continue ;;
            esac
            case "$seen" in *" $device "*) continue ;; esac
            seen="$seen$device "
            if fstrim "$d" 2>/dev/null; then say trimmed "$d"; fi
          done </proc/mounts
        fi
        """,
    ),
)  # fmt: skip


def seal(communicator: Communicator, identity: Identity, report: Reporter, *, keep: Iterable[str] = ()) -> SealReport:
    """Apply every rule except those named in `keep` to the running machine. BuildError when a rule fails.

    Afterwards the build's key cannot log in any more; the open connection remains for the shutdown.
    """
    rules = [rule for rule in SEAL_RULES if rule.name not in set(keep)]
    key = identity.client_public.split()[1]
    try:
        result = communicator.run(seal_script(rules), env={"BAKE_KEY": key}, timeout=TIMEOUT)
    except (Disconnected, GuestTimeout) as error:
        reason = str(error) or "the connection was lost"
        raise BuildError(f"the machine could not be sealed: {reason}", code="seal.connection-lost") from error
    found = _actions(result.stdout, rules)
    for name, actions in found.items():
        for action in actions:
            report.debug(f"seal: {name}: {action}")
    if result.exit_code != 0:
        rule = next((line.split("\t")[1] for line in result.stdout.splitlines() if line.startswith("seal-failed\t")), "unknown")
        last = "\n".join(result.stderr.strip().splitlines()[-5:])
        message = f"the machine could not be sealed: the rule {rule} failed with exit code {result.exit_code}\n{last}".rstrip()
        raise BuildError(message, code="seal.rule-failed")
    report.info(f"sealed: {sum(map(bool, found.values()))} of {len(rules)} rules changed something")
    return SealReport(found)


def seal_script(rules: Iterable[Rule]) -> str:
    """Return all rules as one script for `sh -e`. It prints lines `seal<TAB>rule<TAB>action`, and `seal-failed<TAB>rule` on failure."""
    parts = [FUNCTIONS, 'trap \'code=$?; if [ $code -ne 0 ]; then printf "seal-failed\\t%s\\n" "$rule"; fi\' EXIT\n']
    parts += [f"rule={rule.name}\n{rule.script.strip()}\n" for rule in rules]
    return "".join(parts)


def _actions(output: str, rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {rule.name: [] for rule in rules}
    for line in output.splitlines():
        kind, _, rest = line.partition("\t")
        name, _, action = rest.partition("\t")
        if kind == "seal" and name in found:
            found[name].append(action)
    return {name: tuple(actions) for name, actions in found.items()}
