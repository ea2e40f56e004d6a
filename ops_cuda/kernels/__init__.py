"""The ops' CUDA kernels, one module per op, imported at an op's first call on a CUDA tensor: numba.cuda takes a second."""
