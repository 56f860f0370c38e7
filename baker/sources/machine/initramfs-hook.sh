#!/bin/sh
# With MODULES=list, what the initramfs holds: enough for the root disk of QEMU, Xen, VMware, Hyper-V and the clouds,
# and qemu_fw_cfg, through which systemd reads its credentials before anything else runs.
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_mmio virtio_blk virtio_scsi sd_mod nvme ahci ata_piix xen_blkfront
manual_add_modules vmw_pvscsi mptspi hv_storvsc ext4 crc32c_generic crc32c_intel virtio_rng
force_load qemu_fw_cfg
