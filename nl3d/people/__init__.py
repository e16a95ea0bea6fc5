"""From tracklets to people: calibrated probabilities, constraints, identities and merged tracks."""
