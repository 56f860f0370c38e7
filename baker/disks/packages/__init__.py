"""The package databases of dpkg, apk and rpm, read from a disk without their tools."""
