"""One leader that releases exactly what may run now; the others stand by."""
