"""Networks from and to other tools: QONNX, QCDQ and TFLite int8 in, QONNX out."""
