"""What an instance is told at its first boot: its SSH host key and whose key may log in, and what the template adds.

cloud-init's documentation, "User data formats" and "MIME multi-part archive". EC2 takes 16 KiB before base64.
"""

from __future__ import annotations

import json
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from baker.core.errors import BuildError
from baker.core.model import Identity
from baker.machines.identity import user_data

LONGEST = 16 << 10


def make(identity: Identity, extra: str | None) -> str:
    """The user data. Ours comes first: of two parts that say the same thing cloud-init follows the first."""
    own = "#cloud-config\n" + json.dumps(user_data(identity))
    if extra:
        archive = MIMEMultipart(boundary=f"bake-{identity.host_public.split()[1][-16:].translate(_PLAIN)}")
        for text in (own, extra):
            archive.attach(MIMEText(text, "cloud-config" if text is own else "plain", "utf-8"))
        own = archive.as_string()
    if len(own.encode()) > LONGEST:
        raise BuildError(f"the user data has {len(own.encode())} bytes, and EC2 takes {LONGEST}", hint="builder.user_data must be shorter")
    return own


_PLAIN = str.maketrans({"+": "0", "/": "0", "=": "0"})
