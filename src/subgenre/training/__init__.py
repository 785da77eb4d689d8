"""Learn an encoder from the training tracks of a feature folder.

`fit.fit` is the one entry; it draws batches, runs the `Trainer` and returns the encoder.
"""
