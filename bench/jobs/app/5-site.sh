mkdir -p /srv/app/www
for page in index about contact; do
    printf '<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n' "$page" "$page" > "/srv/app/www/$page.html"
done
printf 'server {\n    listen 8080;\n    root /srv/app/www;\n}\n' > /etc/nginx/conf.d/app.conf
nginx -t -q
