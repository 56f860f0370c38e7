"""Check an image and its ancestors: record, journal, evidence, disk, parents, signatures, provenance, revocations, and the demands of a
policy. Without an image, check every record of the catalog."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import UsageError, VerifyError
from baker.core.host_facts import now
from baker.render.text import clean
from baker.trust.attest.verify import Check, verify, verify_catalog

EXAMPLES = """
  bake verify web@prod
  bake verify web@prod --policy production.yaml
  bake verify web --json | jq '.checks[] | select(.ok == false)'
  bake verify              check every record of the catalog

Exit codes: 0 all checks passed, 2 the policy has problems, 4 a check failed, 5 no such image.
"""
WORDS = {True: "ok", False: "FAILED", None: "-"}
STYLES = {True: "green", False: "red", None: "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="a policy in YAML that the image must meet")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    trust, at = baker.trust, now()
    if args.image is None:
        if args.policy:
            raise UsageError("--policy needs an image", hint="bake verify IMAGE --policy FILE", code="usage.missing-argument")
        return _print_checks(args, app, "the catalog", verify_catalog(trust))
    image = baker.catalog.resolve(args.image)
    policy = None
    if args.policy:
        from baker.trust.attest.policy import load

        policy = load(args.policy, trust)
    checks = verify(image, trust, at=at)
    if policy is not None:
        from baker.trust.attest.policy import judge

        checks += judge(policy, image, trust, at=at)
    return _print_checks(args, app, f"{image.name}@{image.version} ({image.id})", checks)


def _print_checks(args: argparse.Namespace, app: App, what: str, checks: Sequence[Check]) -> int:
    failed = [check for check in checks if check.ok is False]
    if args.json:
        app.json({"what": what, "ok": not failed, "checks": [check.to_json() for check in checks]})
        return VerifyError.exit_code if failed else 0
    subject = ""
    for check in checks if not app.quiet else failed:
        if check.subject != subject:
            subject = check.subject
            app.line(app.out.paint(subject, "bold"))
        app.line(f"  {app.out.paint(f'{WORDS[check.ok]:<6}', STYLES[check.ok])}  {check.name:<11} {clean(check.detail)}")
    if failed:
        raise VerifyError(f"{what}: {len(failed)} of {len(checks)} checks failed", code="verify.check-failed")
    app.note(f"{what}: all checks passed")
    return 0
