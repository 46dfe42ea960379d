"""What REST answers and callbacks contain: shapes, and the functions that fill them."""
