"""Detection and instance segmentation: nets, losses, and COCO's metrics."""
