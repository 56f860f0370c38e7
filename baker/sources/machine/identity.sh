#!/bin/sh
# Who this machine is, decided anew at every boot:
#   - the system credential bake.ssh_host_ed25519_key (from the hypervisor) becomes the SSH host key, so that whoever started
#     the machine knows its key beforehand and trusts nothing on first use;
#   - without it, missing host keys are made: an image has none, so every machine started from it gets its own;
#   - the system credential system.hostname becomes the host name of this run (to systemd itself /etc/hostname counts for more).
set -eu
credentials=/run/credentials/@system
key=/etc/ssh/ssh_host_ed25519_key
given=$credentials/bake.ssh_host_ed25519_key
umask 077
if [ -s "$given" ]; then
    if ! cmp -s "$given" "$key"; then
        cat "$given" > "$key.new"
        mv -f "$key.new" "$key"
        rm -f "$key.pub"  # of the key before; sshd needs none
    fi
else
    for type in ed25519 ecdsa rsa; do
        [ -s "/etc/ssh/ssh_host_${type}_key" ] || { ssh-keygen -A; break; }
    done
fi
if [ -s "$credentials/system.hostname" ]; then
    cat "$credentials/system.hostname" > /proc/sys/kernel/hostname
fi
