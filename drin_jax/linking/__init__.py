"""New text and pictures linked by a trained model: as a library, a command and a service."""
