"""Streets: synthetic driving scenes with exact ground truth."""
