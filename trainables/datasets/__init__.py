"""Where images and captions come from: one file a source."""
