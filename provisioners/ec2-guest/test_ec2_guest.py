def test_the_units_start_with_the_machine(host):
    for name in ("ec2-guest.service", "ec2-guest-script.service"):
        assert host.service(name).is_enabled, name


def test_the_program_compiles_with_this_python(host):
    program = host.file("/usr/lib/ec2-guest/ec2-guest")
    assert program.mode == 0o755
    host.check_output("python3 -c \"compile(open('/usr/lib/ec2-guest/ec2-guest').read(), 'ec2-guest', 'exec')\"")


def test_elsewhere_it_leaves_the_machine_alone(host):
    vendor = host.file("/sys/class/dmi/id/sys_vendor").content_string.strip()
    assert host.file("/var/lib/ec2-guest/instance").exists == (vendor == "Amazon EC2")


def test_the_user_of_the_launch_key_exists(host, bake_vars):
    assert host.file("/etc/ec2-guest/username").content_string.strip() == bake_vars["username"]
    assert host.user(bake_vars["username"]).exists
