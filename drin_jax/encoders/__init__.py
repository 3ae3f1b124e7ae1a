"""Frozen encoders: BERT, CLIP, ResNet and the object detector."""
