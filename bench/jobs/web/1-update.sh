apt-get update -q
