//! The durable segment log on disk.
