"""AWS as far as bake uses it, on 127.0.0.1: moto with what moto leaves out.

    with Emulator(directory, machines=False) as cloud:
        subprocess.run(["bake", ...], env={**os.environ, **cloud.env})
        cloud.client("ec2").describe_images(Owners=["self"])    # the test's own look: not recorded, not judged, no faults

`cloud.url`, `cloud.env` (endpoint, keys, region: what a bake process needs), `cloud.client(service, region)` (the test),
`cloud.as_bake(service, region)` (treated as bake is: recorded, judged, faults).
"""

from tests.ec2.cloud import Emulator

__all__ = ["Emulator"]
