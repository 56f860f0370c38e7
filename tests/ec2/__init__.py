"""AWS as far as bake uses it, on 127.0.0.1: moto over HTTP, with what moto leaves out, and stricter.

    with Emulator(directory, machines=False) as cloud:
        image = cloud.seed_image("debian-13-amd64-20261101-1", size=4, disk=Path("seed.qcow2"))   # somebody else's AMI
        subprocess.run(["bake", ...], env={**os.environ, **cloud.env})
        cloud.client("ec2", "eu-west-1").describe_images(Owners=["self"])   # the test's own look
        assert cloud.unread == []

One Emulator is one process (`python -m tests.ec2.serve`, a second to start) and one account, 123456789012, in all regions; a test may
have several. The process and its machines end with the `with`, and with the test's process, whatever kills that.

Options of Emulator: `machines` (instances are QEMU machines), `policy` (a file: bake's calls need what this IAM policy allows), `delay`
(seconds that a change of state takes; 0.05), `region` (the default one).

    cloud.url                   the endpoint
    cloud.env                   what a bake process needs: endpoint, keys, region, nothing of the developer's own AWS configuration
    cloud.client(service, region=None)    boto3 client of the test: not recorded, not judged by the policy, suffers no faults
    cloud.as_bake(service, region=None)   boto3 client that is treated as bake is
    cloud.calls                 bake's calls in order: {"service", "action", "region", "parameters"}; cloud.clear_calls()
    cloud.unread                what bake sent and nobody here reads, as "ec2:RunInstances.Placement.Tenancy"; the call was refused with
                                EmulatorDoesNotRead (reads_table.py has what is read). Also what broke in the emulator itself
    cloud.denied                what the policy did not allow; cloud.use_policy(Path | dict | None) changes it
    cloud.inventory()           {region: {kind: {id: facts}}} of all that is somebody's: compare before and after
    cloud.seed_image(name, region=None, disk=None, size=8, owner=..., public=True, boot_mode=None, created="2026-11-01T00:00:00.000Z", ...)
    cloud.seed_parameter("/aws/service/...", image)
    cloud.reset()               an empty account, nothing recorded, no faults
    with cloud.delay(0.5): ...  other times

Faults: `cloud.faults.add(action, kind, times=1, skip=0, seconds=1.0, region="")`; `action` is "RunInstances", "ec2:RunInstances" or
"*"; the first `skip` calls that match go well, the `times` after that do not. `cloud.faults.fired` tells which did; Kinds:

    instead of the action   RequestLimitExceeded InsufficientInstanceCapacity InternalError ServiceUnavailable ExpiredToken AccessDenied
                            NotFound InvalidParameterValue InUse VcpuLimitExceeded (in the words and with the status of the service)
                            NotFound of a describing call without ids is an empty list, as with AWS
    after it took effect    reset (the connection is reset, the answer is lost)
    on what it makes        slow (changes of state take `seconds` longer) snapshot-error image-failed spot-reclaim (after `seconds`)
                            instance-fails (pending -> terminated) impaired (status checks never pass) refresh-failed

Every API call of a build in turn: run it once, take `len(cloud.calls)`, then `add("*", kind, skip=n)` for each n.

What is real: EBS direct uploads and snapshots hold bytes (512 KiB blocks in sparse files), an image registered of them boots; with machines
the root disk is NVMe, SSH answers at the instance's PublicIpAddress (one of 127.0.0.0/8) on port 22 and on what else its security groups
open, 169.254.169.254 serves IMDS, a stop is the power button, a guest that powers itself off is stopped, CreateImage takes the disk.
An image of a running machine is refused (EmulatorDoesNot). Machines cannot reach each other. An instance
without a public address has its private one in 127.0.0.0/8 and answers there.
What differs: state changes in a fraction of a second, IAM is evaluated by iam.py (identity policy alone), a refresh's waits are cut short,
an SSM parameter of aws:ec2:image is checked at once, any CIDR opens a port to this host.
"""

from tests.ec2.cloud import Emulator, machines_possible

__all__ = ["Emulator", "machines_possible"]
