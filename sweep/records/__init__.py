"""What a sweep leaves behind while it runs: journal, tables, MLflow, and lines on the terminal."""
