"""Worker processes for imaging: a pool that supervises them, and the code that runs inside one."""
