"""Training as a job on a Ray cluster: submitted from a checkout, or by hand."""
