"""How a model is trained: the loop, its checkpoints, and the Ray job around it."""
