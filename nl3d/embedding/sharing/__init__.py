"""One output made by many processes, from where a killed run stopped."""
