#!/bin/sh
# Installs $PACKAGES. Package lists are fetched once per build: a sealed image has none, and older ones name files that are gone.
set -eu
# a build that is cut off is thrown away whole, so dpkg need not wait for the disk after each file
apt="apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 -o DPkg::Options::=--force-unsafe-io"
stamp=/run/bake-package-lists
if [ -z "$(find "$stamp" -mmin -60 2>/dev/null)" ]; then
    $apt update
    touch "$stamp"
fi
# a name with | in it, "docker-cli|", may be missing from this release of Debian
names=
for name in $PACKAGES; do
    case $name in
    *"|") if apt-cache show "${name%|}" >/dev/null 2>&1; then names="$names ${name%|}"; fi ;;
    *) names="$names $name" ;;
    esac
done
# shellcheck disable=SC2086
$apt -o "APT::Install-Recommends=$RECOMMENDS" install $names
