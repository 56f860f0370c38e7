def test_greeter(host):
    assert host.file("/etc/debian_version").exists
