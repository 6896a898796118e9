"""What a plan is worth: importance of channels, scores of plans, predictions."""
