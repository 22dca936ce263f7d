"""Images with objects in them: boxes, outlines and categories, from COCO's files or drawn."""
