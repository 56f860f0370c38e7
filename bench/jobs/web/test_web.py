"""The finished image serves what its configuration file says. The same file is run on bake's images and on Packer's."""


def get(host, path):
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return host.check_output(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; printf \"{request}\" >&3; cat <&3'")


def test_nginx_is_installed_and_starts_by_itself(host):
    assert host.package("nginx-light").is_installed
    assert host.service("nginx").is_enabled
    assert host.service("nginx").is_running


def test_the_configuration_file_is_root_s(host):
    file = host.file("/etc/nginx/conf.d/bench.conf")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_the_configuration_is_in_force(host):
    answer = get(host, "/health")
    assert answer.startswith("HTTP/1.1 200 OK")
    assert answer.endswith("fine")
