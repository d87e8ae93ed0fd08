"""Parts shared by two or more methods. Knows no method."""
