"""Reports: figures, TensorBoard, the report page of a run, and tables of comparisons."""
