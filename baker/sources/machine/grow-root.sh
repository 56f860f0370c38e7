#!/bin/sh
# Let the root file system fill its disk: the image is small, the disk that it is put on need not be.
# Costs two reads of /sys when there is nothing to do. bake puts the root partition last, so that it has room to grow.
set -eu
exec 2>&1
device=$(findmnt --noheadings --output SOURCE --nofsroot /)
partition=${device#/dev/}
sys=$(readlink -f "/sys/class/block/$partition")
[ -r "$sys/partition" ] || exit 0  # a file system right on the disk: growfs below has nothing to do either
disk=${sys%/*}
number=$(cat "$sys/partition")
start=$(cat "$sys/start")
size=$(cat "$sys/size")
total=$(cat "$disk/size")
# 2048 sectors (1 MiB) hold the second partition table at the end and the alignment
if [ "$((start + size + 4096))" -lt "$total" ]; then
    echo ", +" | sfdisk --quiet --force --no-reread --no-tell-kernel --partno "$number" "/dev/${disk##*/}"
    partx --update --nr "$number" "/dev/${disk##*/}"
    /lib/systemd/systemd-growfs /
fi
