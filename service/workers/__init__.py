"""Worker processes: a pool of slots that replaces dead workers, and what runs inside one."""
