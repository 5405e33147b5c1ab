"""Registration of two volumes: features, transforms of points and images, similarity; arrays in, arrays out."""
