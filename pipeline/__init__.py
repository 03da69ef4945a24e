"""Script Distill: small networks that tell the script of a word, taught down a chain."""
