"""What the answers contain: shapes, and the functions that fill them."""
