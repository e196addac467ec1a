"""The packed dataset: a cached uint8 array that training reads."""
