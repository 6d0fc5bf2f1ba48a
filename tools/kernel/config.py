"""Settings of the kernels that `tools.book` starts."""

# Kernels speak to Sphinx over the loopback interface only: no warning that this is not encrypted.
get_config().IPKernelApp.log_level = "ERROR"  # noqa: F821 (IPython provides it)
