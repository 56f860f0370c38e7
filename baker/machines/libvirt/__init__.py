"""The libvirt builder. Only this package imports libvirt."""

import os

# libvirt reads this when it is loaded, and would print warnings of its in-process driver on our terminal. Errors come as exceptions.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")
