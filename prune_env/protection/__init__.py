"""Protection: finds sensitive units by the ranks of their feature maps, and records the evidence."""
