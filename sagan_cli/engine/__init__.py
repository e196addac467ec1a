"""The verbs as functions: train, sample, checkpoint. They take values, raise SaganError, and never print or exit."""
