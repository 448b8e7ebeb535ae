"""Models trained to judge what other models make."""
