"""Send runs to TensorBoard, Weights & Biases or ClearML: python -m tools.track."""
