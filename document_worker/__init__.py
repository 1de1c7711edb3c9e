"""The documents tier: RQ jobs that take a document apart, have its texts translated in the bulk
lane, and put it together again."""
