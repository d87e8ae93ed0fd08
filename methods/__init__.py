"""One package per method; a method never imports another."""
