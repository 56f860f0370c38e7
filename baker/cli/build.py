"""Build images: launch, provision, seal, capture, verify, record. An image that exists already is not built again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_template_options, positive, request_of
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.plan.requests import BuildRequest, BuildResult

EXAMPLES = """
  bake build web.yaml
  bake build web.yaml --var site_title=Hello --on-error ask
  bake build debian-13.yaml web.yaml proxy.yaml --parallel 2 --keep-going
  bake build web.yaml --json | jq -r 'select(.event == "build_finished") | .image'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a template file")
    add_template_options(parser)
    how = parser.add_argument_group("how to build")
    how.add_argument("--force", action="store_true", help="build even if an image with this fingerprint exists; layers are used")
    how.add_argument("--no-cache", action="store_true", help="build from the source, without layers, even if the image exists")
    how.add_argument(
        "--from", dest="from_", metavar="STEP", help="run this step (name or number) and all later ones, even if there are layers"
    )
    how.add_argument("--until", metavar="STEP", help="stop after this step and keep the machine as a layer (see `bake shell --layer`)")
    how.add_argument("--pull", action="store_true", help="ask the source again instead of using the copy on this host")
    how.add_argument("--locked", action="store_true", help="fail unless everything agrees with the lock file (see `bake lock`)")
    how.add_argument("--skip-verify", action="store_true", help="do not test the image; it is registered as not verified")
    how.add_argument("--parallel", type=positive, default=0, metavar="N", help="number of builds at a time (default: number of processors)")
    how.add_argument(
        "--keep-going", "--no-fail-fast", action="store_true", help="after a failure, continue with builds that do not need the failed one"
    )
    how.add_argument("--connect", metavar="URI", help="libvirt connection, such as qemu:///system (default: libvirt in the bake process)")
    how.add_argument("--accelerator", choices=("auto", "kvm", "tcg"), help="accelerator of QEMU (default: decided by a probe)")
    fails = parser.add_argument_group("when a build fails")
    fails.add_argument(
        "--on-error",
        choices=("cleanup", "abort", "ask", "shell"),
        help="clean up, leave the machine running, ask, or open a shell in it first (default: as the template says)",
    )
    fails.add_argument("--keep-failed", action="store_true", help="leave the machine running if verification fails")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")


def run(args: argparse.Namespace, app: App) -> int:
    from baker.cli.prompt import Prompt

    with display(app, json=args.json) as shown:
        baker = app.baker(shown, Prompt(app, shown))
        results = baker.build(requests(args), parallel=args.parallel, fail_fast=not args.keep_going)
    for result in results:
        report_failure(app, baker, result, json=args.json)
    return next((result.exit_code for result in results if result.exit_code and result.status != "skipped"), 0)


def requests(args: argparse.Namespace) -> list[BuildRequest]:
    """One request per template file, all with the same options."""
    from baker.plan.requests import BuildOptions

    if len(set(args.files)) < len(args.files):
        raise UsageError("a template is named twice", hint="name each template once", code="usage.duplicate-template")
    options = BuildOptions(
        on_error=args.on_error,
        skip_verify=args.skip_verify,
        force=args.force,
        keep_failed=args.keep_failed,
        pull=args.pull,
        uri=args.connect,
        accelerator=args.accelerator,
        no_cache=args.no_cache,
        first=args.from_,
        last=args.until,
        locked=args.locked,
    )
    return [request_of(args, file, options) for file in args.files]


def report_failure(app: App, baker: Baker, result: BuildResult, *, json: bool) -> None:
    """Print what the display does not show: why a build was not started, and what a failed build left behind."""
    if not result.exit_code:
        return
    bad = app.err.paint(app.err.glyphs.bad, "red")
    if result.status == "skipped" or not result.build_id:
        app.err.line(f"{bad} {result.name} {result.version}: {result.error or result.status}")
        return
    if json:
        app.err.line(f"{bad} {result.name} {result.version}: {result.error}")
    left = result.build_id in baker.ledger.dead_builds() or result.build_id in baker.ledger.live()
    if left:
        app.note(f"{result.name}: its machine is kept for inspection; `bake sweep --kept` removes it")
    else:
        app.note(f"{result.name}: cleaned up; of build {result.build_id} only the log is kept")
