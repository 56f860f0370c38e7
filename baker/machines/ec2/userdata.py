"""The user data of an instance: its SSH host key, the key that may log in, and what the template adds.

Sources: cloud-init's documentation, "User data formats" and "MIME multi-part archive"; the EC2 User Guide: 16 KiB before base64.
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
    """Make the user data. bake's own part is first: cloud-init merges parts so that the first value of a key wins."""
    own = "#cloud-config\n" + json.dumps(user_data(identity))
    if extra:
        archive = MIMEMultipart(boundary=f"bake-{identity.host_public.split()[1][-16:].translate(_PLAIN)}")
        for text in (own, extra):
            archive.attach(MIMEText(text, "cloud-config" if text is own else "plain", "utf-8"))
        own = archive.as_string()
    if len(own.encode()) > LONGEST:
        message = f"the user data has {len(own.encode())} bytes, and EC2 allows {LONGEST}"
        raise BuildError(message, hint="shorten builder.user_data", code="ec2.user-data-too-long")
    return own


_PLAIN = str.maketrans({"+": "0", "/": "0", "=": "0"})
