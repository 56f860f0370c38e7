#!/bin/sh
# Locks what can be entered without a password, and takes the new settings into use.
set -eu
for user in $(awk -F: '$2 == "" { print $1 }' /etc/shadow); do
    usermod --lock "$user"
done
chmod 0640 /etc/shadow
chmod 0600 /etc/ssh/sshd_config
if command -v sshd >/dev/null; then
    mkdir -p /run/sshd
    # an image has no host keys until it boots: the check of the configuration gets one of its own
    key=$(mktemp -d)
    trap 'rm -rf "$key"' EXIT
    ssh-keygen -q -t ed25519 -N "" -f "$key/host"
    sshd -t -h "$key/host"
    if [ -d /run/systemd/system ]; then systemctl try-reload-or-restart ssh.service; fi
fi
if [ -d /run/systemd/system ]; then
    systemctl restart systemd-sysctl.service
    systemctl try-restart systemd-resolved.service
fi
