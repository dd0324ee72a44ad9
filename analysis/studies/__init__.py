"""Studies of generated films as functions of arrays: alignment, utility, copies, membership, encoders, early scores."""
