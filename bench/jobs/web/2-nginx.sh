packages="nginx-light"
apt-get install -q -y $packages
