def get(host, port, path="/"):
    """Status line, headers and body of one request, made inside the machine with nothing but bash."""
    request = f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"
    return host.check_output(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf \"{request}\" >&3; cat <&3'")


def test_it_runs_now_and_after_a_reboot(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_the_configuration_is_valid(host):
    assert host.run("nginx -t").succeeded


def test_it_answers_with_our_headers_and_without_its_version(host, bake_vars):
    answer = get(host, bake_vars["port"], "/no-such-page")
    assert answer.startswith("HTTP/1.1 404")
    assert "X-Content-Type-Options: nosniff" in answer
    assert "Server: nginx\r\n" in answer or "Server: nginx\n" in answer


def test_hidden_files_are_not_served(host, bake_vars):
    assert get(host, bake_vars["port"], "/.git/config").startswith("HTTP/1.1 403")


def test_workers_are_not_root(host):
    workers = host.process.filter(comm="nginx", user="www-data")
    assert workers
