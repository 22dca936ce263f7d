"""What runs cells: one of them, and many."""
