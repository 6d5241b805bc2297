"""Our own files: written atomically, hashed, read without running anything in them."""
