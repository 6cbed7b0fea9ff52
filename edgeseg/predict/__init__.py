"""From photos and videos to maps, whatever runs the network."""
