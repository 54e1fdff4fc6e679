"""What everything else stands on: errors, files, fingerprints, layer types, clocks. It imports nothing of ours."""
