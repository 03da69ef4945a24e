"""Where things run and are kept: for now, the S3 server of this machine."""
