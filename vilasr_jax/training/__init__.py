"""The three stages, their losses and steps."""
