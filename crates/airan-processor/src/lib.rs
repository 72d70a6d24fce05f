//! The processor role: one shard per partition, from messages to committed windows.
