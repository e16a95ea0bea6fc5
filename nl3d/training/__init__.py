"""Training in small pieces: recipes, schedule, checkpoints, averages, the loop; needs the extra ``train``."""
