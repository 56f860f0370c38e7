"""Keys that sign what is baked, and public keys of others that signatures are checked with. ed25519, or keys in AWS KMS (ECDSA on P-256);
private ones stay where they are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import HostError, UsageError
from baker.trust.attest.keys import AWS_KMS, Keys, PublicKey

EXAMPLES = """
  bake keys create                     the first key signs every image from then on
  bake keys list
  bake keys export default -o ci.pub   for others: bake keys trust ci.pub
  bake keys trust ci.pub               check signatures of that key
  bake keys export default --private   bake keys import takes it over on another host
  bake keys trust awskms:///alias/images     a key in AWS KMS (ECC_NIST_P256, SIGN_VERIFY): its public half, here
  bake keys default awskms:///alias/images   it signs from now on; other kinds are plugins (entry points bake.signers)

BAKE_KEY_PASSPHRASE, when set, encrypts private keys that are made or taken over, and opens them.
"""
ACTIONS = ("create", "list", "export", "import", "trust", "default")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument(
        "what",
        nargs="?",
        default="",
        metavar="NAME-OR-FILE",
        help="import and trust: a PEM file (trust: or awskms:///KEY); else the key's name",
    )
    parser.add_argument("--name", default="", metavar="NAME", help="import, trust: what to call it here (else the file's name)")
    parser.add_argument("--private", action="store_true", help="export: the private key, as it is kept")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="export: write it there, readable for its owner only")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    keys = Keys(app.home.data / "keys", app.env)
    if args.action == "list":
        return _list(args, app, keys)
    if args.action == "export":
        return _export(args, app, keys)
    if args.action in ("import", "trust", "default") and not args.what:
        raise UsageError(f"bake keys {args.action} needs {'a name' if args.action == 'default' else 'a file'}")
    if args.action == "default":
        keys.default(args.what)
        app.note(f"{args.what} signs what is baked from now on")
        return 0
    if args.action == "create":
        key, said = keys.create(args.what or "default"), "made"
    elif args.action == "import":
        key, said = keys.import_(Path(args.what), args.name), "took over"
    else:
        kms = args.what.startswith(f"{AWS_KMS}:")
        key, said = keys.trust_signer(args.what, args.name) if kms else keys.trust(Path(args.what), args.name), "trust"
    if args.json:
        app.json(_json(key))
    else:
        app.line(key.keyid if app.quiet else f"{said} key {key.name} ({key.keyid})" + ("; it signs what is baked" if key.default else ""))
    return 0


def _list(args: argparse.Namespace, app: App, keys: Keys) -> int:
    found = keys.list()
    if args.json:
        app.json([_json(key) for key in found])
    elif not found:
        app.note("no keys yet: `bake keys create` makes one")
    else:
        app.lines(app.table(("name", "key", "what for"), [(key.name, key.keyid, _use(key)) for key in found]))
        if ":" in keys.signing:
            app.note(f"{keys.signing} signs what is baked")
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
        raise UsageError(f"{args.output} exists already") from error
    except OSError as error:
        raise HostError(f"cannot write {args.output}: {error.strerror}") from error
    return 0


def _use(key: PublicKey) -> str:
    return "signs what is baked" if key.default else "signs with --key" if key.own else "trusted"


def _json(key: PublicKey) -> dict[str, object]:
    return {"name": key.name, "keyid": key.keyid, "own": key.own, "default": key.default, "pem": key.pem}
