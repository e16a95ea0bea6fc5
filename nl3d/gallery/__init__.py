"""Living galleries: vectors with names, people, cameras, times and thumbnails in one file that is added to daily."""
