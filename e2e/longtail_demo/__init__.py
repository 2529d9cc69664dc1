"""The demo: a rising and falling load of long thoughts, and the pool that follows it."""
