def test_web(host):
    assert host.file("/etc/debian_version").exists
