"""Where a model computes, and where its weights rest: on one device, or on others what it cannot hold."""
