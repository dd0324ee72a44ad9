"""What trials and finalists score: films generated, features taken once, compared with real films. No mathematics here."""
