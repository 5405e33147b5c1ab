"""Registration: find the transform between two volumes, and apply it to images, label images and tables."""
