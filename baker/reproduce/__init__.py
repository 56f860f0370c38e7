"""Images that can be made again, bit by bit: rules for what differs by accident, a layout that depends on content only, proof."""
