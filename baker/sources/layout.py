"""Make a partitioned disk that boots under BIOS and UEFI from a tar of a root file system.

Everything is done on plain files, without root rights, loop devices or mounts. Sectors are 512 bytes.

    sector      0  protective MBR with GRUB's boot.img in its first 440 bytes; GPT behind it
    sector   2048  BIOS boot partition, 1 MiB: GRUB's core.img, found through the block list in boot.img
    sector   4096  EFI system partition, FAT32: /EFI/BOOT/BOOTX64.EFI, the path for removable media (UEFI specification, 3.5.1.1)
    sector 131072  root partition, ext4, last, so that it can grow with the disk

Both GRUB images contain all modules that they need. They find the root file system by its UUID and continue with its
/boot/grub/grub.cfg. Nothing points into the root file system by position, so its blocks may be laid out again later without a change
to the boot loaders.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

from baker.core.errors import HostError
from baker.core.process import need, run
from baker.core.user_namespace import in_namespace

VERSION = 2  # part of every bootstrap's key: raise it with every change here that changes the resulting disk
SECTOR = 512
MIB = 1 << 20
BIOS_START, BIOS_SECTORS = 2048, 2048
ESP_START = BIOS_START + BIOS_SECTORS
ROOT_START = 64 * MIB // SECTOR
BACKUP_SECTORS = 2048  # after the root partition: room for the backup GPT, and an aligned end
SMALLEST_DISK = 2048 * MIB
GRUB_DIRECTORY = Path("/usr/lib/grub")
MODULES = (
    "part_gpt", "ext2", "normal", "configfile", "linux", "search", "search_fs_uuid", "search_label", "test", "echo", "ls", "cat",
    "gzio", "sleep", "reboot", "halt", "minicmd",
)  # fmt: skip
FEATURES = (  # listed one by one because the default set of features differs between versions of e2fsprogs
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
JOURNAL_MIB = 32
TYPE_BIOS = "21686148-6449-6E6F-744E-656564454649"
TYPE_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
TYPE_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # x86-64 root, Discoverable Partitions Specification


@dataclass(frozen=True)
class Names:
    """The identifiers on a disk, derived from a seed so that equal inputs give an equal disk."""

    disk: str
    bios: str
    esp: str
    root: str  # partition UUID
    filesystem: str  # UUID of the root file system, also its hash seed
    fat: str  # volume ID of the EFI system partition: 8 hex digits

    @classmethod
    def of(cls, seed: str) -> Names:
        def one(what: str) -> str:
            return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bake {seed} {what}"))

        return cls(one("disk"), one("bios"), one("esp"), one("root"), one("filesystem"), one("fat")[:8].upper())

    @property
    def fat_uuid(self) -> str:
        """The volume ID as /etc/fstab writes it: XXXX-XXXX."""
        return f"{self.fat[:4]}-{self.fat[4:]}"

    def fill(self, text: str) -> str:
        """Replace @ROOT_UUID@ and @ESP_UUID@ in `text`."""
        return text.replace("@ROOT_UUID@", self.filesystem).replace("@ESP_UUID@", self.fat_uuid)


@dataclass(frozen=True)
class Layout:
    """The partitions of a disk of `size` bytes."""

    size: int

    @classmethod
    def for_content(cls, used: int) -> Layout:
        """The layout for a tree of `used` bytes, with room for file system overhead and growth: at least 2 GiB, in steps of 256 MiB."""
        wanted = used * 13 // 10 + 512 * MIB + ROOT_START * SECTOR
        step = 256 * MIB
        return cls(max(SMALLEST_DISK, -(-wanted // step) * step))

    @property
    def esp_sectors(self) -> int:
        return ROOT_START - ESP_START

    @property
    def root_sectors(self) -> int:
        return self.size // SECTOR - ROOT_START - BACKUP_SECTORS

    def script(self, names: Names) -> str:
        """The partition table in the script format of sfdisk(8)."""
        return "\n".join((
            "label: gpt",
            f"label-id: {names.disk}",
            "unit: sectors",
            "first-lba: 34",
            f"start={BIOS_START}, size={BIOS_SECTORS}, type={TYPE_BIOS}, uuid={names.bios}, name=bios",
            f"start={ESP_START}, size={self.esp_sectors}, type={TYPE_ESP}, uuid={names.esp}, name=esp",
            f"start={ROOT_START}, size={self.root_sectors}, type={TYPE_ROOT}, uuid={names.root}, name=root",
            "",
        ))  # fmt: skip


def make_disk(tar: Path, destination: Path, *, names: Names, early_config: str, scratch: Path, epoch: int) -> Layout:
    """Write a raw, sparse disk to `destination` whose root file system has the content of `tar`.

    Temporary files go to `scratch`. `early_config` is the configuration inside GRUB's own images, which finds the root file system.
    `epoch` (seconds since the epoch) replaces the clock for the tools. Raises HostError when a tool is missing, CommandError when one
    fails.
    """
    check_host()
    layout = Layout.for_content(tar.stat().st_size)
    root, esp = scratch / "root.ext4", scratch / "esp.fat"
    _make_root(tar, root, layout, names, scratch=scratch, epoch=epoch)
    core = _grub_image("i386-pc", early_config, (*MODULES, "biosdisk"), scratch / "core.img")
    efi = _grub_image("x86_64-efi", early_config, (*MODULES, "efi_gop", "all_video"), scratch / "BOOTX64.EFI")
    _make_esp(efi, esp, layout, names, epoch)
    with destination.open("wb") as disk:
        disk.truncate(layout.size)
    run([need("sfdisk", package="fdisk"), "--quiet", "--no-reread", "--no-tell-kernel", destination], input=layout.script(names))
    install_bios_loader(destination, (GRUB_DIRECTORY / "i386-pc/boot.img").read_bytes(), core.read_bytes())
    for part, start in ((esp, ESP_START), (root, ROOT_START)):
        run(["dd", f"if={part}", f"of={destination}", "bs=1M", f"seek={start * SECTOR // MIB}", "conv=notrunc,sparse", "status=none"])
        part.unlink()
    return layout


def check_host() -> None:
    """Raise HostError unless this host can make such disks; the hint names the missing package."""
    if platform.machine() != "x86_64":
        raise HostError(
            f"bootable disks can be made on x86-64 hosts only; this host is {platform.machine()}",
            hint="use a file or url source",
            code="host.architecture",
        )
    need("sfdisk", package="fdisk")
    need("mke2fs", package="e2fsprogs")
    need("grub-mkimage", package="grub-common")
    need("mkfs.vfat", package="dosfstools")
    need("mcopy", package="mtools")
    for platform_name, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        if not (GRUB_DIRECTORY / platform_name / "kernel.img").exists():
            raise HostError(
                f"GRUB's modules for {platform_name} are not installed", hint=f"apt-get install {package}", code="host.tool-missing"
            )


def install_bios_loader(disk: Path, boot: bytes, core: bytes) -> None:
    """Write GRUB's boot.img into the master boot record of `disk` and core.img into its BIOS boot partition.

    The fields are documented in GRUB's grub-core/boot/i386/pc/boot.S and diskboot.S. At 0x5c, boot.img holds the first sector of
    core.img. The jump at 0x66 is replaced by two NOPs, so that GRUB uses the drive number that the BIOS passes. The last 12 bytes of
    core.img's first sector are the block list for its other sectors: u64 start, u16 length, u16 segment (already correct).
    """
    sectors = -(-len(core) // SECTOR)
    if sectors > BIOS_SECTORS:
        raise HostError(
            f"GRUB's core image has {sectors} sectors, but the BIOS boot partition has only {BIOS_SECTORS}",
            hint="this host's GRUB is too large for bake's disk layout: use a file or url source",
            code="host.grub-too-large",
        )
    patched_boot = bytearray(boot[:440])
    struct.pack_into("<Q", patched_boot, 0x5C, BIOS_START)
    patched_boot[0x66:0x68] = b"\x90\x90"
    patched_core = bytearray(core.ljust(sectors * SECTOR, b"\0"))
    struct.pack_into("<QH", patched_core, 500, BIOS_START + 1, sectors - 1)
    with disk.open("r+b") as file:
        file.write(patched_boot)
        file.seek(BIOS_START * SECTOR)
        file.write(patched_core)


def _make_root(tar: Path, image: Path, layout: Layout, names: Names, *, scratch: Path, epoch: int) -> None:
    """Make the root file system in the file `image`.

    mke2fs accepts a tar only since version 1.47.1. The tree is therefore unpacked first, inside a user namespace that keeps the owners.
    """
    script = """
        tar=$1 tree=$2
        shift 2
        trap 'rm -rf -- "$tree"' EXIT
        mkdir -m 700 -- "$tree"
        tar --extract --file "$tar" --directory "$tree" --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*'
        "$@" -d "$tree" "$image" "$size"
    """
    mke2fs = (
        need("mke2fs", package="e2fsprogs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1", "-L", "root", "-U", names.filesystem,
        "-O", FEATURES, "-I", "256", "-i", "16384", "-G", "16", "-J", f"size={JOURNAL_MIB}",
        "-E", f"hash_seed={names.filesystem},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
    )  # fmt: skip
    environment = {
        "image": str(image), "size": f"{layout.root_sectors // 2}k",
        "SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch),
    }  # fmt: skip
    image.unlink(missing_ok=True)
    argv = ["sh", "-euc", script, "sh", str(tar), str(scratch / "tree"), *mke2fs]
    run(in_namespace(argv), env=environment, what="making the root file system")


def _grub_image(kind: str, early_config: str, modules: tuple[str, ...], destination: Path) -> Path:
    config = destination.with_suffix(".cfg")
    config.write_text(early_config)
    argv: list[str | Path] = [
        need("grub-mkimage", package="grub-common"), "-O", kind, "-p", "/boot/grub", "-c", config, "-o", destination, *modules,
    ]  # fmt: skip
    run(argv, what=f"making GRUB's {kind} image")
    return destination


def _make_esp(efi: Path, image: Path, layout: Layout, names: Names, epoch: int) -> None:
    with image.open("wb") as file:
        file.truncate(layout.esp_sectors * SECTOR)
    run([need("mkfs.vfat", package="dosfstools"), "--invariant", "-F", "32", "-i", names.fat, "-n", "ESP", image])
    os.utime(efi, (epoch, epoch))
    environment = {"MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"}
    run([_mtool("mmd"), "-i", image, "::/EFI", "::/EFI/BOOT"], env=environment)
    run([_mtool("mcopy"), "-m", "-i", image, efi, "::/EFI/BOOT/BOOTX64.EFI"], env=environment)


def _mtool(name: str) -> str:
    return shutil.which(name) or need(name, package="mtools")
