"""The dispatcher: one leader releases the jobs that may run now; the others stand by."""
