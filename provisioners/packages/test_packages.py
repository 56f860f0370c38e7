def test_packages_are_installed(host, bake_vars):
    for name in bake_vars["install"].split():
        if not name.endswith("|"):
            assert host.package(name).is_installed, name
