"""The paper's method: encoders, views, losses, metrics."""
