"""Images in: official layouts read and audited, words generated, shards written and loaded."""
