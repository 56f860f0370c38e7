#!/bin/sh
# The engine starts with the machine. Here it only has to accept its settings: not every build machine can run containers.
set -eu
for user in $DOCKER_USERS; do
    usermod --append --groups docker "$user"
done
dockerd --validate --config-file=/etc/docker/daemon.json
for unit in docker.service containerd.service; do
    systemctl is-enabled --quiet "$unit" || systemctl enable "$unit"
done
# later steps that use it meet these settings; on a machine where it cannot run, it is not running now either
if [ -d /run/systemd/system ]; then systemctl try-restart docker.service; fi
