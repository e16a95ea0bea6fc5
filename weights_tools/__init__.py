"""The offline side of the zoo, command ``nl3d-weights``: tell, convert, check and publish checkpoints."""
