#!/bin/sh
# Runs inside the new root after all packages are there: from a package tree to a machine without an identity.
set -eu
hostname=$1
systemctl enable systemd-networkd.service systemd-resolved.service ssh.service bake-identity.service bake-grow-root.service
for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer \
    systemd-pstore.service; do
    systemctl disable "$unit" 2>/dev/null || true  # not every suite has each
done
echo "$hostname" > /etc/hostname
chmod 644 /etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n' "$hostname" > /etc/hosts
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
: > /etc/machine-id
rm -f /etc/.resolv.conf.systemd-resolved.bak  # systemd-resolved keeps the name servers of the host there
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /etc/apt/apt.conf.d/00bake-host
mkdir -p /boot/efi
# the caches that systemd would rebuild at the first start are as new as /usr: systemd-update-done.service(8)
touch /etc/.updated /var/.updated
