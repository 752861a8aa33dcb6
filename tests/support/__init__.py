"""What several test modules share. Imported as `support.<module>`."""
