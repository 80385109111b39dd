"""Lightning: the training loop around the model and the data."""
