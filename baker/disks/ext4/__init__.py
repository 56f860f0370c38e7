"""Reader and writer for ext4 file systems, and reader for ext2 and ext3."""
