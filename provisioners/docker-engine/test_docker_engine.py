import json


def test_the_engine_runs_now_and_after_a_reboot(host):
    for name in ("docker", "containerd"):
        assert host.service(name).is_enabled, name
        assert host.service(name).is_running, name


def test_it_answers_and_has_taken_its_settings(host, bake_vars):
    info = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert info["LiveRestoreEnabled"]
    assert info["LoggingDriver"] == "json-file"
    assert not info["Containers"], "no container is in the image"


def test_the_socket_is_for_the_docker_group_only(host):
    socket = host.file("/run/docker.sock")
    assert socket.is_socket
    assert (socket.group, socket.mode) == ("docker", 0o660)


def test_the_users_are_in_the_group(host, bake_vars):
    for name in bake_vars["users"].split():
        assert "docker" in host.user(name).groups, name
