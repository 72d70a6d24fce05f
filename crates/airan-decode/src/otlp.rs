//! OTLP metrics, protobuf and JSON.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use crate::{Context, DecodeError, Decoded};

/// Reads an `ExportMetricsServiceRequest` in protobuf.
pub fn decode_protobuf(_body: &[u8], _context: &Context<'_>) -> Result<Decoded, DecodeError> {
    todo!()
}

/// Reads an `ExportMetricsServiceRequest` in OTLP's JSON.
pub fn decode_json(_body: &[u8], _context: &Context<'_>) -> Result<Decoded, DecodeError> {
    todo!()
}

/// Reads a request that is decoded already.
pub fn decode_request(_request: &ExportMetricsServiceRequest, _context: &Context<'_>) -> Result<Decoded, DecodeError> {
    todo!()
}
