"""Manage keys that sign images, and public keys of others that signatures are checked with. Keys are ed25519, or ECDSA on P-256 in AWS KMS,
where the private half stays."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.disk_space import host_error
from baker.core.errors import UsageError
from baker.trust.attest.keys import AWS_KMS, Keys, PublicKey

EXAMPLES = """
  bake keys create                     the first key becomes the default: it signs every image
  bake keys list
  bake keys export default -o ci.pub   others run: bake keys trust ci.pub
  bake keys trust ci.pub               accept signatures of that key
  bake keys export default --private   `bake keys import` adds it on another host
  bake keys trust awskms:///alias/images     trust a key in AWS KMS (ECC_NIST_P256, SIGN_VERIFY)
  bake keys default awskms:///alias/images   sign with it from now on

Plugins (entry points bake.signers) add other kinds of keys. If BAKE_KEY_PASSPHRASE is set,
private keys are encrypted with it.
"""
ACTIONS = ("create", "list", "export", "import", "trust", "default")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument(
        "what",
        nargs="?",
        default="",
        metavar="NAME-OR-FILE",
        help="import, trust: a PEM file; trust, default: also awskms:///KEY; otherwise the name of the key",
    )
    parser.add_argument(
        "--name", default="", metavar="NAME", help="import, trust: the name of the key here (default: the name of the file)"
    )
    parser.add_argument("--private", action="store_true", help="export: write the private key, as it is stored")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="export: the file to write, readable for its owner only")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    keys = Keys(app.home.data / "keys", app.env)
    if args.action == "list":
        return _list(args, app, keys)
    if args.action == "export":
        return _export(args, app, keys)
    if args.action in ("import", "trust", "default") and not args.what:
        needed = "NAME" if args.action == "default" else "FILE"
        hint = f"bake keys {args.action} {needed}"
        raise UsageError(f"bake keys {args.action} needs {needed}", hint=hint, code="usage.missing-argument")
    if args.action == "default":
        keys.default(args.what)
        app.note(f"{args.what} signs images from now on")
        return 0
    if args.action == "create":
        key, action = keys.create(args.what or "default"), "created"
    elif args.action == "import":
        key, action = keys.import_(Path(args.what), args.name), "imported"
    else:
        kms = args.what.startswith(f"{AWS_KMS}:")
        key, action = keys.trust_signer(args.what, args.name) if kms else keys.trust(Path(args.what), args.name), "trusted"
    if args.json:
        app.json(_json(key))
    else:
        app.line(key.keyid if app.quiet else f"{action} key {key.name} ({key.keyid})" + ("; it signs images" if key.default else ""))
    return 0


def _list(args: argparse.Namespace, app: App, keys: Keys) -> int:
    every = keys.list()
    if args.json:
        app.json([_json(key) for key in every])
    elif not every:
        app.note("no keys yet: `bake keys create` creates one")
    else:
        app.lines(app.table(("name", "key", "use"), [(key.name, key.keyid, _use(key)) for key in every]))
        if ":" in keys.signing:
            app.note(f"{keys.signing} signs images")
    return 0


def _export(args: argparse.Namespace, app: App, keys: Keys) -> int:
    name = args.what or "default"
    text = keys.private(name) if args.private else keys.public(name).pem
    if args.output is None:
        app.out.stream.write(text)
        return 0
    try:
        descriptor = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{args.output} exists already", hint="choose another file", code="output.exists") from error
    except OSError as error:
        raise host_error(error, args.output) from error
    return 0


def _use(key: PublicKey) -> str:
    return "signs images" if key.default else "signs with --key" if key.own else "trusted"


def _json(key: PublicKey) -> dict[str, object]:
    return {"name": key.name, "keyid": key.keyid, "own": key.own, "default": key.default, "pem": key.pem}
