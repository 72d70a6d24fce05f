//! The bus: Kafka, or the local log.
