"""The finished image serves its page, and to strangers it shows nothing else."""

from html import escape


def get(host, path):
    request = f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"
    return host.check_output(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; printf \"{request}\" >&3; cat <&3'")


def test_the_page_is_served(host, bake_vars):
    answer = get(host, "/")
    assert answer.startswith("HTTP/1.1 200 OK")
    assert f"<h1>{escape(bake_vars['title'])}</h1>" in answer


def test_the_page_belongs_to_root(host):
    page = host.file("/var/www/html/index.html")
    assert (page.user, page.group, page.mode) == ("root", "root", 0o644)


def test_nothing_but_ssh_and_the_page_listens(host):
    """Ports of /proc/net/tcp and tcp6 in state 0A (listening), on any address but loopback."""
    lines = host.check_output("cat /proc/net/tcp /proc/net/tcp6").splitlines()
    sockets = [line.split()[1].rsplit(":", 1) for line in lines if len(line.split()) > 3 and line.split()[3] == "0A"]
    loopback = ("0100007F", "00000000000000000000000001000000")
    ports = {int(port, 16) for address, port in sockets if address not in loopback and not address.endswith("7F")}
    assert ports == {22, 80}


def test_the_machine_came_up_whole(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
