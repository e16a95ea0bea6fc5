"""Networks; none of them touches the internet."""
