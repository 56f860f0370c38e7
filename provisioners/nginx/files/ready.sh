#!/bin/sh
# Debian's nginx.conf may set some of our settings already, and nginx takes each one once.
set -eu
sed -i -E 's/^([[:space:]]*)(server_tokens[[:space:]].*;)/\1# \2 (see conf.d)/' /etc/nginx/nginx.conf
mkdir -p "$ROOT"
ln -sf ../sites-available/default /etc/nginx/sites-enabled/default
rm -f /var/www/html/index.nginx-debian.html
nginx -t
systemctl is-enabled --quiet nginx.service || systemctl enable nginx.service
if [ -d /run/systemd/system ]; then systemctl reload-or-restart nginx.service; fi
