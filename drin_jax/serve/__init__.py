"""The linker as a service."""
