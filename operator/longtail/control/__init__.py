"""The running operator: loop, kopf handlers, composition root, settings, health, own metrics."""
