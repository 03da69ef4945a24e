"""What a model is taught: losses, and the methods that use them."""
