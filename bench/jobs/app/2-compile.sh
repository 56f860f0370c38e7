# the standard library's packages become the application, compiled ahead of its first start
mkdir -p /opt/app
for part in asyncio concurrent ctypes email encodings html http importlib json logging multiprocessing sqlite3 unittest urllib xml; do
    cp -r "/usr/lib/python3.13/$part" /opt/app/
done
find /opt/app -name __pycache__ -prune -exec rm -r {} +
python3 -m compileall -q -f -j 2 /opt/app
