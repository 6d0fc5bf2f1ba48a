"""Settings of the kernels that `tools.run_pages` starts."""

# Kernels are spoken to over the loopback interface only: no warning that this is not encrypted.
get_config().IPKernelApp.log_level = "ERROR"  # noqa: F821 (IPython provides it)
