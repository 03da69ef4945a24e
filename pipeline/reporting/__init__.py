"""What the report is made of: the evidence it reads, its figures and pictures, its page."""
