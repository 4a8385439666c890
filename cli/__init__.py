"""The `chargepki` command: thin shells over the library, one noun a module."""
