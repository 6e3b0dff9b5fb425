"""Anchors of the audit: how many records there were and the last hash, signed with Ed25519, kept outside the database.

Who rewrites the whole chain in the database cannot make the anchors of former days again without the key; who keeps a
copy of the public key and of the anchors needs neither database nor daemon to see it. One JSON object a line:
{"time_us", "seq", "hash", "signature"}; the signature is over the canonical JSON of the other three.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from .audit import Anchor, Break, canonical


def _signed(anchor: Anchor) -> bytes:
    return canonical({name: value for name, value in asdict(anchor).items() if name != "signature"}).encode()


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key of an installation, made at first use (file mode 0600); its public half stands beside it as `.pub`.

    UsageError where the file is no such key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path.with_suffix(".pub").write_bytes(public)
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(_no_key(path, str(error))) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise UsageError(_no_key(path, type(found).__name__))
    return found


def public_key(path: Path) -> Ed25519PublicKey:
    """The public half from its PEM file; UsageError where it is none."""
    try:
        found = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(_no_key(path, str(error))) from error
    if not isinstance(found, Ed25519PublicKey):
        raise UsageError(_no_key(path, type(found).__name__))
    return found


def _no_key(path: Path, why: str) -> str:
    return tr(f"{path} is no Ed25519 key in PEM form: {why}", f"{path} 不是 PEM 格式的 Ed25519 密钥: {why}")


def sign(anchor: Anchor, key: Ed25519PrivateKey) -> Anchor:
    """The same with its signature (Base64)."""
    return replace(anchor, signature=base64.b64encode(key.sign(_signed(anchor))).decode())


def forged(anchors: Sequence[Anchor], key: Ed25519PublicKey) -> Break | None:
    """The first anchor that was not signed with the key's other half, or None."""
    for anchor in anchors:
        try:
            key.verify(base64.b64decode(anchor.signature, validate=True), _signed(anchor))
        except (InvalidSignature, binascii.Error, ValueError):
            text = tr(
                f"the anchor of record {anchor.seq} was not signed by this installation",
                f"记录 {anchor.seq} 的锚点并非由本系统签名",
            )
            return Break(seq=anchor.seq, kind="anchor", text=text)
    return None
