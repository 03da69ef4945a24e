"""Where things run and are kept: one Ray for many stages, the S3 server of this machine."""
