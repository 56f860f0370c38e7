groupadd --system app
for user in ada brian edsger grace; do
    useradd --create-home --shell /bin/sh --groups app "$user"
    install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
done
for shard in 0 1 2 3 4 5 6 7; do
    install -d -m 750 -g app "/srv/app/data/$shard"
    for number in 0 1 2 3 4 5 6 7 8 9; do
        echo "shard $shard record $number" > "/srv/app/data/$shard/$number.txt"
    done
done
chgrp -R app /srv/app/data
