"""Files that ``compress package`` copies beside an ONNX file; nothing here is imported by the toolkit itself."""
