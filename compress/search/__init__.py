"""Search: which channels go. NumPy and pymoo only; nothing here sees a tensor."""
