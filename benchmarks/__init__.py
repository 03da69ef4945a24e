"""How fast, beside what: ratios measured in one run."""
