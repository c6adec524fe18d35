"""What a picture's file says before it is decoded, and the file without what its decoder does not need."""
