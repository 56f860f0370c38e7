"""A partitioned disk that boots by itself under BIOS and UEFI, out of a tar of a root file system.

Made of plain files only: no root rights, loop device or mount. Sectors are 512 bytes.

    sector      0  protective MBR with GRUB's boot.img in its first 440 bytes; GPT behind it
    sector   2048  BIOS boot partition, 1 MiB: GRUB's core.img, found through the block list in boot.img
    sector   4096  EFI system partition, FAT32: /EFI/BOOT/BOOTX64.EFI, the path for removable media (UEFI specification, 3.5.1.1)
    sector 131072  root partition, ext4, last, so that it can grow with the disk

Both GRUBs hold all modules they need and go on with /boot/grub/grub.cfg of the root file system, which they find by its UUID: nothing
points into the root file system by position, so it may be laid out again later without touching the loaders.
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

VERSION = 2  # part of every bootstrap's key: raise it when a disk made by this module would differ
SECTOR = 512
MIB = 1 << 20
BIOS_START, BIOS_SECTORS = 2048, 2048
ESP_START = BIOS_START + BIOS_SECTORS
ROOT_START = 64 * MIB // SECTOR
BACKUP_SECTORS = 2048  # the second partition table, and the alignment of the end
SMALLEST_DISK = 2048 * MIB
GRUB_DIRECTORY = Path("/usr/lib/grub")
MODULES = (
    "part_gpt", "ext2", "normal", "configfile", "linux", "search", "search_fs_uuid", "search_label", "test", "echo", "ls", "cat",
    "gzio", "sleep", "reboot", "halt", "minicmd",
)  # fmt: skip
FEATURES = (  # named one by one: what is on by default is another set in every version
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
JOURNAL_MIB = 32
TYPE_BIOS = "21686148-6449-6E6F-744E-656564454649"
TYPE_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
TYPE_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # x86-64 root, Discoverable Partitions Specification


@dataclass(frozen=True)
class Names:
    """The identifiers on a disk. Derived from a seed, so that the same inputs give the same disk."""

    disk: str
    bios: str
    esp: str
    root: str  # partition UUID
    filesystem: str  # UUID of the root file system, also its hash seed
    fat: str  # volume id of the EFI system partition: 8 hex digits

    @classmethod
    def of(cls, seed: str) -> Names:
        def one(what: str) -> str:
            return str(uuid.uuid5(uuid.NAMESPACE_OID, f"bake {seed} {what}"))

        return cls(one("disk"), one("bios"), one("esp"), one("root"), one("filesystem"), one("fat")[:8].upper())

    @property
    def fat_uuid(self) -> str:
        """The volume id as /etc/fstab names it: XXXX-XXXX."""
        return f"{self.fat[:4]}-{self.fat[4:]}"

    def fill(self, text: str) -> str:
        """`text` with @ROOT_UUID@ and @ESP_UUID@ filled in."""
        return text.replace("@ROOT_UUID@", self.filesystem).replace("@ESP_UUID@", self.fat_uuid)


@dataclass(frozen=True)
class Layout:
    """Where the partitions of a disk of `size` bytes lie."""

    size: int

    @classmethod
    def for_content(cls, used: int) -> Layout:
        """The disk for a tree of `used` bytes: room for file system overhead and some growth, in steps of 256 MiB, 2 GiB at least."""
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
        """The partition table in sfdisk(8)'s own language."""
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
    """Write a raw, sparse disk to `destination` whose root file system has the content of `tar`. Temporary files go to `scratch`.

    `early_config` is GRUB's first configuration, which finds the root file system. `epoch`: seconds, for times that the tools would
    otherwise take from the clock. Raises HostError when a tool is missing, CommandError when one fails.
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
    """HostError, naming the package, unless this host can make such disks."""
    if platform.machine() != "x86_64":
        raise HostError(f"disks that boot are made on x86-64 hosts only; this is {platform.machine()}", hint="use a file or url source")
    need("sfdisk", package="fdisk")
    need("mke2fs", package="e2fsprogs")
    need("grub-mkimage", package="grub-common")
    need("mkfs.vfat", package="dosfstools")
    need("mcopy", package="mtools")
    for platform_name, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        if not (GRUB_DIRECTORY / platform_name / "kernel.img").exists():
            raise HostError(f"GRUB's modules for {platform_name} are not installed", hint=f"apt-get install {package}")


def install_bios_loader(disk: Path, boot: bytes, core: bytes) -> None:
    """Put GRUB's boot.img into the master boot record of `disk` and core.img into its BIOS boot partition.

    The fields are those of grub-core/boot/i386/pc/boot.S and diskboot.S: at 0x5c of boot.img the sector of core.img; at 0x66 a jump that
    becomes two NOPs, so that the BIOS's drive number is believed; at the end of core.img's first sector the list of its other
    blocks: u64 start, u16 length, u16 segment (which is right already).
    """
    sectors = -(-len(core) // SECTOR)
    if sectors > BIOS_SECTORS:
        raise HostError(f"GRUB's core image has {sectors} sectors, the BIOS boot partition {BIOS_SECTORS}")
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
    """The root file system. mke2fs takes a tar only from version 1.47.1 on, so the tree is unpacked where the owners are right."""
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
    run(in_namespace(argv), env=environment, what="laying out the root file system")


def _grub_image(kind: str, early_config: str, modules: tuple[str, ...], destination: Path) -> Path:
    config = destination.with_suffix(".cfg")
    config.write_text(early_config)
    argv: list[str | Path] = [
        need("grub-mkimage", package="grub-common"),
        "-O",
        kind,
        "-p",
        "/boot/grub",
        "-c",
        config,
        "-o",
        destination,
        *modules,
    ]
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
