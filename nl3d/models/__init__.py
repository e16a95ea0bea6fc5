"""Networks; building one never touches the internet."""
