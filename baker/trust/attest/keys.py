"""Signing keys: private keys in files that only their user can read, and the public keys that are trusted.

Private keys are ed25519 (RFC 8032). Trusted public keys may also be ECDSA keys on P-256 with SHA-256, which AWS KMS uses.

    DATA/keys/NAME.pem       PKCS#8, encrypted when BAKE_KEY_PASSPHRASE was set
    DATA/keys/NAME.pub       SubjectPublicKeyInfo, PEM
    DATA/keys/trusted/*.pub  public keys of others
    DATA/keys/default        the name of the key that signs new images

The ID of a key is the SHA-256 of its public key in DER form. `awskms:///alias/NAME` is a key in AWS KMS. Other kinds of signers (another
KMS, a PKCS#11 token) are plugins: entry points of the group `bake.signers`. Each is a callable that takes the part after `NAME:` and
returns a Signer.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from baker.core.errors import HostError, NotFoundError, UsageError
from baker.core.home import ensure
from baker.trust.attest.dsse import Signer

PASSPHRASE = "BAKE_KEY_PASSPHRASE"  # noqa: S105 - the name of the variable
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_HINT = "use at most 64 letters, digits, dots, dashes and underscores, with a letter or digit first"
PLUGINS = "bake.signers"
AWS_KMS = "awskms"
Public = Ed25519PublicKey | ec.EllipticCurvePublicKey  # an elliptic curve key is always one on P-256


@dataclass(frozen=True)
class PublicKey:
    """A trusted key."""

    name: str
    keyid: str
    own: bool  # whether its private key is on this host
    default: bool
    pem: str


class FileSigner:
    """Sign with a private key on this host."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.key = key

    @property
    def keyid(self) -> str:
        return keyid_of(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


class Keys:
    """The keys below a data directory."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self._directory, self._env = directory, env

    def create(self, name: str = "default") -> PublicKey:
        """Make a new key. The first one becomes the default. UsageError when the name is taken or invalid."""
        return self._keep(self._free(name), Ed25519PrivateKey.generate())

    def _free(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a valid name for a key", hint=NAME_HINT, code="key.name")
        if self._private(name).exists():
            raise UsageError(f"a key with the name {name} already exists", hint="choose another name", code="key.exists")
        return name

    def _keep(self, name: str, key: Ed25519PrivateKey) -> PublicKey:
        path = self._private(name)
        ensure(self._directory)
        self._write(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, self._encryption()), 0o600)
        self._write(path.with_suffix(".pub"), _pem(key.public_key()).encode(), 0o644)
        if not (self._directory / "default").exists():
            self._write(self._directory / "default", f"{name}\n".encode(), 0o644)
        return self.public(name)

    def import_(self, file: Path, name: str = "") -> PublicKey:
        """Import a private key (PKCS#8, PEM). The copy is encrypted with BAKE_KEY_PASSPHRASE if that is set."""
        name = self._free(name or file.stem)
        return self._keep(name, self._signer(file, str(file)).key)

    def default(self, name: str) -> None:
        """Make this key, or a plugin's ("kms:arn:..."), the one that signs new images. NotFoundError when the key is not on this host."""
        if ":" not in name:
            self._signer(self._private(name), name)
        self._write(ensure(self._directory) / "default", f"{name}\n".encode(), 0o644)

    def private(self, name: str) -> str:
        """The private key as it is stored: PEM, encrypted if it was made with a passphrase."""
        self._signer(self._private(name), name)
        return self._private(name).read_text()

    def list(self) -> list[PublicKey]:
        """The user's own keys, then those of others, each sorted by name."""
        own = sorted(self._directory.glob("*.pub"))
        others = sorted((self._directory / "trusted").glob("*.pub"))
        return [self._read(path, own=path in own) for path in (*own, *others)]

    def public(self, name: str) -> PublicKey:
        """The key with this name, ID, or prefix of an ID (at least 8 digits). NotFoundError when there is none."""
        for key in self.list():
            if key.name == name or (len(name) >= 8 and key.keyid.startswith(name)):
                return key
        raise NotFoundError(
            f"there is no key {name}", hint="bake keys list shows all keys, bake keys create makes one", code="key.not-found"
        )

    def trust(self, file: Path, name: str = "") -> PublicKey:
        """Trust the public key in `file` (PEM) from now on."""
        try:
            key = load_public(file.read_bytes())
        except OSError as error:
            raise UsageError(
                f"cannot read {file}: {error.strerror}", hint="name a file with a public key", code="key.unreadable"
            ) from error
        return self.trust_key(key, name or file.stem)

    def trust_signer(self, name: str, called: str) -> PublicKey:
        """Trust the public key of a signer that can report it, such as `awskms:///alias/NAME`, under the name `called`."""
        signer = self.signer(name)
        public = getattr(signer, "public", None)
        if public is None:
            raise UsageError(
                f"the signer {name} cannot report its public key",
                hint="trust its public key as a file: bake keys trust PUBFILE",
                code="key.no-public-key",
            )
        return self.trust_key(_supported(serialization.load_der_public_key(public)), called or name.rpartition("/")[2])

    def trust_key(self, key: Public, name: str) -> PublicKey:
        """Trust a public key under the name `name`."""
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a valid name for a key", hint=f"--name NAME: {NAME_HINT}", code="key.name")
        if self._private(name).exists():
            raise UsageError(f"a key of your own has the name {name}", hint="choose another name with --name NAME", code="key.exists")
        place = ensure(self._directory / "trusted") / f"{name}.pub"
        self._write(place, _pem(key).encode(), 0o644)
        return self._read(place, own=False)

    @property
    def signing(self) -> str:
        """The default signer: the name of a key, or one such as `awskms:///alias/NAME`; "" for none."""
        try:
            return (self._directory / "default").read_text().strip()
        except OSError:
            return ""

    def signer(self, name: str = "") -> Signer | None:
        """The signer with this name ("PLUGIN:REST" for a plugin's), or the default one; None when there is no default."""
        name = name or self.signing
        if not name:
            return None
        kind, colon, rest = name.partition(":")
        if kind == AWS_KMS and colon:
            from baker.aws.kms import KmsSigner

            return KmsSigner(rest)
        if colon:
            found = next(iter(entry_points(group=PLUGINS, name=kind)), None)
            if found is None:
                raise NotFoundError(
                    f"no plugin provides the signer {kind}:",
                    hint=f"install a package with the entry point {kind} in the group {PLUGINS}",
                    code="key.no-plugin",
                )
            made: Signer = found.load()(rest)
            return made
        return self._signer(self._private(name), name)

    def check(self, keyid: str, data: bytes, signature: bytes) -> bool:
        """Whether the signature is valid and the key is trusted on this host."""
        key = next((each for each in self.list() if each.keyid == keyid), None)
        if key is None:
            return False
        public = load_public(key.pem.encode())
        try:
            if isinstance(public, Ed25519PublicKey):
                public.verify(signature, data)
            else:
                public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def _signer(self, path: Path, name: str) -> FileSigner:
        passphrase = self._env.get(PASSPHRASE, "").encode() or None
        try:
            data = path.read_bytes()
            encrypted = b"ENCRYPTED" in data
            key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
        except OSError as error:
            raise NotFoundError(
                f"there is no private key {name} on this host", hint=f"bake keys create {name} makes one", code="key.no-private-key"
            ) from error
        except (ValueError, TypeError) as error:
            raise HostError(
                f"the key {name} cannot be opened: {error}",
                hint=f"set {PASSPHRASE} to the passphrase that the key was made with",
                code="key.passphrase",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise HostError(f"the key {name} is not an ed25519 key", hint="bake keys create makes one", code="key.type")
        return FileSigner(key)

    def _private(self, name: str) -> Path:
        return self._directory / f"{name}.pem"

    def _encryption(self) -> serialization.KeySerializationEncryption:
        passphrase = self._env.get(PASSPHRASE, "")
        return serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()

    def _read(self, path: Path, *, own: bool) -> PublicKey:
        pem = path.read_text()
        default = self._directory / "default"
        is_default = own and default.exists() and default.read_text().strip() == path.stem
        return PublicKey(path.stem, keyid_of(load_public(pem.encode())), own and path.with_suffix(".pem").exists(), is_default, pem)

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        partial = path.with_name(f".{path.name}.part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        partial.rename(path)


def load_public(pem: bytes) -> Public:
    """Parse a public key (PEM). UsageError when it is not one, or of an unsupported type."""
    try:
        return _supported(serialization.load_pem_public_key(pem))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "this is not a public key in PEM form", hint="bake keys export NAME writes one", code="key.not-a-public-key"
        ) from error


def _supported(key: object) -> Public:
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        return key
    raise UsageError("this public key is neither ed25519 nor ECDSA on P-256", hint="use a key of one of these types", code="key.type")


def keyid_of(key: Public) -> str:
    """The ID of a key: the SHA-256 of its DER form, 64 hex digits."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _pem(key: Public) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
