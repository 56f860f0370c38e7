"""The libvirt builder. Only this package imports libvirt, in library.py."""
