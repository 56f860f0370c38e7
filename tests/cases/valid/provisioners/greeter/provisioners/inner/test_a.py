def test_inner(host):
    assert host.file("/etc/debian_version").exists
