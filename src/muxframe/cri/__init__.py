"""Container runtimes that speak the CRI."""
