//! Event-time windows planned and run with DataFusion.
