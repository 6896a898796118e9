"""What a cut network gets back: batch norms, least squares, training; and C-SGD, which trains before the cut."""
