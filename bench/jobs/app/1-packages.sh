packages="nginx-light rsync"
apt-get update -q
apt-get install -q -y $packages
