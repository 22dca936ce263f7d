"""Detection and instance segmentation: nets, losses, and the scores that COCO computes."""
