"""Reports: figures, TensorBoard, the page of a run, and tables of comparisons."""
