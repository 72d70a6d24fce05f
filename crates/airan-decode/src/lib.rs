//! Foreign bytes to typed rows: OTLP, Prometheus text, NDJSON, Arrow.
