"""The commands ``longtail`` and ``kubectl longtail``: thin."""
