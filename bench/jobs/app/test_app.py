"""The finished image has everything that the five steps made. The same file is run on bake's images and on Packer's."""


def get(host, path):
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return host.check_output(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; printf \"{request}\" >&3; cat <&3'")


def test_nginx_serves_the_site(host):
    assert host.service("nginx").is_running
    assert "<h1>about</h1>" in get(host, "/about.html")


def test_the_application_is_compiled(host):
    assert int(host.check_output("find /opt/app -name '*.pyc' | wc -l")) > 100


def test_the_runtime_is_packed(host):
    assert host.file("/srv/app/runtime.tar.zst").size > 1_000_000


def test_users_and_data_are_there(host):
    assert "app" in host.user("grace").groups
    assert host.file("/srv/app/data/7/9.txt").content_string == "shard 7 record 9\n"
