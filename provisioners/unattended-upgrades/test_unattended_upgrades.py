def test_the_timers_run(host):
    for name in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(name).is_enabled, name


def test_apt_knows_what_to_do(host, bake_vars):
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert f'Unattended-Upgrade::Automatic-Reboot "{str(bake_vars["reboot"]).lower()}";' in settings


def test_security_updates_are_among_the_origins(host):
    assert "Debian-Security" in host.check_output("apt-config dump Unattended-Upgrade::Origins-Pattern")
