"""What is drawn for people: sheets, overlays, depth in colours, energy plots."""
