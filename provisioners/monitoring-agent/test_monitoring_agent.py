def metrics(host, bake_vars):
    port = bake_vars["listen"].rpartition(":")[2]
    return host.check_output(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; printf \"GET /metrics HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'")


def test_it_runs_now_and_after_a_reboot(host):
    assert host.service("prometheus-node-exporter").is_running
    assert host.service("prometheus-node-exporter").is_enabled


def test_it_tells_of_the_machine(host, bake_vars):
    text = metrics(host, bake_vars)
    for name in ("node_load1", "node_memory_MemTotal_bytes", "node_filesystem_avail_bytes"):
        assert f"\n{name}" in text, name


def test_collectors_are_off(host, bake_vars):
    text = metrics(host, bake_vars)
    for name in bake_vars["disable"].split():
        assert f'collector="{name}"' not in text, name


def test_it_is_not_root(host):
    assert host.process.get(comm="prometheus-node").user == "prometheus"
