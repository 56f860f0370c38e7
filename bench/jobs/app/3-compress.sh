# what the application is delivered with, packed hard
mkdir -p /srv/app
tar --create --sort=name --owner=0 --group=0 --directory / usr/lib/python3.13 opt/app | zstd -q -9 -f -o /srv/app/runtime.tar.zst
zstd -q -t /srv/app/runtime.tar.zst
