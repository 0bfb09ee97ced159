"""The embedded Triton: NVIDIA's own server, on the CPU, as a child of this process."""
